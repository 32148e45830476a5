"""A host that writes all the time, to volumes that come and grow, and knows what may be there."""

from __future__ import annotations

import random
import threading
from pathlib import Path

from tests.fakes.nbd_client import NbdClient

BLOCK = 4096


class SteadyWriter:
    """Writes random blocks in a thread, one at a time, over lost connections and restarts."""

    def __init__(self, socket: Path, volumes: dict[str, int], seed: int) -> None:
        self._socket = socket
        self._random = random.Random(seed)
        self._lock = threading.Lock()
        self._blocks = {name: size // BLOCK for name, size in volumes.items()}
        self.possible: dict[str, dict[int, set[bytes]]] = {name: {} for name in volumes}
        """What each block that was written may hold: one value, or more after a lost answer."""
        self.answered = 0
        self.errors: list[str] = []
        self._stopping = threading.Event()
        self._progress = threading.Condition()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stopping.set()
        self._thread.join(60)
        assert not self._thread.is_alive()
        assert not self.errors, self.errors

    def set_size(self, name: str, size: int) -> None:
        """Write to a new volume, or to all of a grown one, from now on."""
        with self._lock:
            self._blocks[name] = size // BLOCK
            self.possible.setdefault(name, {})

    def drop(self, name: str) -> None:
        """Write no more to a volume; on return none of its writes is under way."""
        with self._lock:
            del self._blocks[name]

    def wait_for(self, more: int, seconds: float = 60.0) -> None:
        """Wait until ``more`` writes were answered from now on."""
        with self._progress:
            wanted = self.answered + more
            assert self._progress.wait_for(lambda: self.answered >= wanted, seconds)

    def judge(self, name: str, image: Path) -> None:
        """Every block that was written holds what it may; every other one is zeros."""
        content = image.read_bytes()
        for block in range(len(content) // BLOCK):
            found = content[block * BLOCK : (block + 1) * BLOCK]
            may = self.possible[name].get(block, {bytes(BLOCK)})
            assert found in may, f"{image}: block {block} holds what nobody wrote last"

    def _run(self) -> None:
        clients: dict[str, NbdClient] = {}
        while not self._stopping.is_set():
            with self._lock:
                self._write_one(clients)
        for client in clients.values():
            client.socket.close()

    def _write_one(self, clients: dict[str, NbdClient]) -> None:
        name = self._random.choice(sorted(self._blocks))
        block = self._random.randrange(self._blocks[name])
        payload = self._random.randbytes(16) * (BLOCK // 16)
        may = self.possible[name].setdefault(block, {bytes(BLOCK)})
        try:
            if name not in clients:
                clients[name] = NbdClient(self._socket, name)
            may.add(payload)
            error = clients[name].write(block * BLOCK, payload)
        except (OSError, ConnectionError):
            for client in clients.values():
                client.socket.close()
            clients.clear()
            self._stopping.wait(0.05)
            return
        if error:
            self.errors.append(f"write to {name} block {block}: error {error}")
            self._stopping.set()
        self.possible[name][block] = {payload}
        with self._progress:
            self.answered += 1
            self._progress.notify_all()

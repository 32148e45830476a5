"""Stamped writes and their judge: any image of any site can be judged alone.

Every block that is written says who wrote it (run, volume, block, sequence) in each of its 64
parts, so torn and misplaced blocks show. The writer keeps two volumes busy at once, remembers what
was answered, and what of the other volume had been answered when each write was sent. A site's two
images are right if each equals the state after a prefix of its volume's writes, the two prefixes
fit together (no write without one that was answered before it was sent), and, at the primary, no
answered write is beyond them.
"""

from __future__ import annotations

import hashlib
import random
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tests.fakes.nbd_client import WRITE, WRITE_ZEROES, NbdClient

BLOCK = 4096
_STAMP = struct.Struct("<8sQQQ")
_PART = 64
LARGEST_WRITE = 16
"""Blocks of the largest write."""


@dataclass(frozen=True, slots=True)
class Stamped:
    """One write; ``other_answered`` is how many of the other volume's writes had been answered."""

    sequence: int
    block: int
    count: int
    zero: bool
    other_answered: int


@dataclass(slots=True)
class History:
    """One volume's writes in the order in which they were sent, from the last judgement on."""

    blocks: int
    base: list[int] = field(default_factory=list)
    """Sequence that each block held before ``writes`` (0: zeros)."""
    writes: list[Stamped] = field(default_factory=list)
    answered: int = 0
    """How many writes from the first one include every answered one."""

    def __post_init__(self) -> None:
        self.base = [0] * self.blocks


def stamp(run: bytes, volume: str, block: int, sequence: int) -> bytes:
    """Return the 4096 bytes that a write puts into a block."""
    volume_number = int.from_bytes(volume.encode()[:8], "little")
    head = _STAMP.pack(run, volume_number, block, sequence)
    return (head + hashlib.blake2b(head, digest_size=_PART - len(head)).digest()) * (BLOCK // _PART)


class StampedWriter:
    """Writes at random places of two volumes, each over a connection of its own."""

    def __init__(
        self, socket: Path, volumes: Mapping[str, int], seed: int, depth: int = 16
    ) -> None:
        """``volumes`` are sizes in bytes by name; exactly two."""
        assert len(volumes) == 2
        self.run = random.Random(seed).randbytes(8)
        self.histories = {name: History(size // BLOCK) for name, size in volumes.items()}
        self.answered_total = 0
        self.lost_total = 0
        self._socket = socket
        self._random = random.Random(seed)
        self._depth = depth
        self._sequence = 0

    def write_until_cut(self, limit: int | None = None) -> int:
        """Write until the server is gone (or ``limit`` writes are answered); return how many
        were answered. What was sent and not answered is unknown."""
        before = self.answered_total
        clients: dict[str, NbdClient] = {}
        flying: dict[str, dict[int, int]] = {name: {} for name in self.histories}
        try:
            for name in self.histories:
                clients[name] = NbdClient(self._socket, name)
            while limit is None or self.answered_total - before < limit:
                name = self._random.choice(list(self.histories))
                if len(flying[name]) >= self._depth:
                    self._take_answer(name, clients[name], flying[name])
                self._send(name, clients[name], flying[name])
            for name, client in clients.items():
                while flying[name]:
                    self._take_answer(name, client, flying[name])
        except (ConnectionError, BrokenPipeError, FileNotFoundError):
            pass  # the server was killed: that is what this waits for
        finally:
            for client in clients.values():
                client.socket.close()
        return self.answered_total - before

    def _send(self, name: str, client: NbdClient, flying: dict[int, int]) -> None:
        history = self.histories[name]
        other = next(each for key, each in self.histories.items() if key != name)
        self._sequence += 1
        count = self._random.choice([1, 1, 1, 2, 4, LARGEST_WRITE])
        block = self._random.randrange(history.blocks - count + 1)
        zero = self._random.random() < 0.08
        history.writes.append(Stamped(self._sequence, block, count, zero, other.answered))
        index = len(history.writes)
        if zero:
            cookie = client.send(WRITE_ZEROES, block * BLOCK, count * BLOCK)
        else:
            payload = b"".join(
                stamp(self.run, name, block + at, self._sequence) for at in range(count)
            )
            cookie = client.send(WRITE, block * BLOCK, count * BLOCK, payload)
        flying[cookie] = index

    def _take_answer(self, name: str, client: NbdClient, flying: dict[int, int]) -> None:
        cookie, error, _ = client.reply()
        assert error == 0, f"volume {name}: write answered with error {error}"
        history = self.histories[name]
        history.answered = max(history.answered, flying.pop(cookie))
        self.answered_total += 1

    def judge(self, images: Mapping[str, Path], *, acknowledged: bool) -> dict[str, int]:
        """Return the prefix of each volume that ``images`` hold; AssertionError says what is wrong.

        ``acknowledged`` also asks that nothing answered is missing.
        """
        first, second = self.histories
        fits = {
            name: self._fitting_prefixes(name, _sequences(self.run, name, images[name]))
            for name in self.histories
        }
        pairs = [
            {first: at_first, second: at_second}
            for at_first in fits[first]
            for at_second in fits[second]
            if self._consistent(first, at_first, at_second)
            and self._consistent(second, at_second, at_first)
        ]
        assert pairs, f"the volumes stop at different points of the sequence: {fits}"
        found = pairs[-1]
        if acknowledged:
            for name, history in self.histories.items():
                assert found[name] >= history.answered, (
                    f"volume {name}: {history.answered} writes were answered, the image holds the "
                    f"first {found[name]} (seed's run {self.run.hex()})"
                )
        return found

    def settle(self, found: Mapping[str, int]) -> None:
        """Take what the primary holds after its restart as what there is; forget unknown writes."""
        for name, history in self.histories.items():
            self.lost_total += len(history.writes) - found[name]
            for write in history.writes[: found[name]]:
                _apply(history.base, write)
            history.writes.clear()
            history.answered = 0

    def _consistent(self, name: str, prefix: int, other_prefix: int) -> bool:
        if prefix == 0:
            return True
        return self.histories[name].writes[prefix - 1].other_answered <= other_prefix

    def _fitting_prefixes(self, name: str, found: list[int]) -> list[int]:
        """Return every prefix whose state is ``found`` (several only if zeros hit zeros)."""
        history = self.histories[name]
        state = list(history.base)
        fits = [0] if state == found else []
        for at, write in enumerate(history.writes, start=1):
            _apply(state, write)
            if state[write.block] == found[write.block] and state == found:
                fits.append(at)
        assert fits, (
            f"volume {name}: the image is the state after no prefix of its {len(history.writes)} "
            f"writes; newest block {max(found)}"
        )
        return fits


def _apply(state: list[int], write: Stamped) -> None:
    value = 0 if write.zero else write.sequence
    state[write.block : write.block + write.count] = [value] * write.count


def _sequences(run: bytes, volume: str, image: Path) -> list[int]:
    """Return the sequence that each block holds; AssertionError for a block that nobody wrote."""
    content = image.read_bytes()
    zeros = bytes(BLOCK)
    found = []
    for block in range(len(content) // BLOCK):
        each = content[block * BLOCK : (block + 1) * BLOCK]
        if each == zeros:
            found.append(0)
            continue
        sequence = _STAMP.unpack_from(each)[3]
        assert each == stamp(run, volume, block, sequence), (
            f"{image}: block {block} is torn or foreign (claims sequence {sequence})"
        )
        found.append(sequence)
    return found

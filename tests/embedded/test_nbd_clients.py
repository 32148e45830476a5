"""The NBD front end with clients that we did not write, over a fake group in memory."""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from replicator.frontends.nbd import NbdServer, listen_unix
from tests.fakes.host_service import FakeService, MemoryVolume

SIZE = 64 << 20


class Served:
    """A volume called ``db`` behind an NBD socket."""

    def __init__(self, folder: Path) -> None:
        self.volume = MemoryVolume("db", 1, SIZE)
        self.socket = folder / "orders.nbd"
        self.uri = f"nbd+unix:///db?socket={self.socket}"
        self._service = FakeService([self.volume])
        self._server = NbdServer(self._service, [listen_unix(self.socket)])
        self._server.start()

    def close(self) -> None:
        self._server.close()
        self._service.close()


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    server = Served(tmp_path)
    yield server
    server.close()


def _run(*command: object, cwd: Path | None = None) -> str:
    words = [str(word) for word in command]
    if shutil.which(words[0]) is None:
        pytest.skip(f"{words[0]} is not installed: run tools/packages.sh")
    # nbdsh is a Python program of the system, and not of the environment that runs the tests.
    environment = {**os.environ, "PATH": f"/usr/bin:{os.environ['PATH']}", "PYTHONPATH": ""}
    finished = subprocess.run(
        words, cwd=cwd, env=environment, capture_output=True, text=True, timeout=120
    )
    assert finished.returncode == 0, finished.stdout + finished.stderr
    return finished.stdout


def test_nbdinfo_sees_size_block_sizes_and_flags(served: Served) -> None:
    export = json.loads(_run("nbdinfo", "--json", served.uri))["exports"][0]
    assert export["export-name"] == "db"
    assert export["export-size"] == SIZE
    assert (export["block_size_minimum"], export["block_size_preferred"]) == (512, 4096)
    for able in ("can_flush", "can_fua", "can_multi_conn", "can_trim", "can_zero"):
        assert export[able] is True, able
    assert export["is_read_only"] is False


@pytest.mark.parametrize("block_range", ["512-4k", "4k-1m"])
def test_fio_verifies_what_it_wrote(served: Served, tmp_path: Path, block_range: str) -> None:
    _run(
        "fio",
        "--name=verify",
        "--ioengine=nbd",
        f"--uri={served.uri}",
        "--rw=randrw",
        f"--bsrange={block_range}",
        "--iodepth=16",
        "--size=16m",
        "--verify=crc32c",
        "--verify_backlog=64",
        "--verify_fatal=1",
        cwd=tmp_path,
    )


def test_nbdcopy_and_qemu_img_copy_an_image_both_ways(served: Served, tmp_path: Path) -> None:
    image = tmp_path / "image"
    with image.open("wb") as file:
        for _ in range(8):
            file.write(random.Random(3).randbytes(1 << 20) + bytes(7 << 20))
    served.volume.content[:] = b"old!" * (SIZE // 4)
    _run("nbdcopy", image, served.uri)
    assert served.volume.content == image.read_bytes()
    _run("nbdcopy", served.uri, tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == image.read_bytes()
    served.volume.content[:] = b"old!" * (SIZE // 4)
    _run("qemu-img", "convert", "-n", "-f", "raw", "-O", "raw", image, served.uri)
    _run("qemu-img", "compare", "-f", "raw", "-F", "raw", image, served.uri)


def test_qemu_io_writes_discards_and_flushes(served: Served) -> None:
    commands = ["write -P 0x5a 4096 1M", "discard 8192 4096", "flush", "read -P 0x5a 12288 4096"]
    words = [word for command in commands for word in ("-c", command)]
    _run("qemu-io", "-f", "raw", *words, served.uri)
    assert served.volume.content[4096:8192] == b"\x5a" * 4096
    assert served.volume.content[8192:12288] == bytes(4096)


def test_nbdsh_gets_an_error_for_a_write_past_the_end(served: Served) -> None:
    _run(
        "nbdsh",
        "-u",
        served.uri,
        "-c",
        "h.set_strict_mode(0)",
        "-c",
        "try:\n    h.pwrite(b'x' * 512, h.get_size())\n    raise SystemExit('accepted')\n"
        "except nbd.Error as error:\n    assert error.errno == 'ENOSPC', error.errno",
        "-c",
        "h.pwrite(b'x' * 512, 0); assert h.pread(512, 0) == b'x' * 512",
    )

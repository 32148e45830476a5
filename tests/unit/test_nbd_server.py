"""The NBD server on a real socket: what clients may do, and what they may do wrong (F41)."""

from __future__ import annotations

import random
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from replicator.errors import DeviceBusy, DeviceUnusable
from replicator.frontends import nbd as server_module
from replicator.frontends.lone_client import STREAK
from replicator.frontends.nbd import NbdServer, listen_unix
from replicator.frontends.nbd_memory import RESERVED_CHUNKS, ChunkAllowance, ChunkPool
from replicator.model import HostFailure
from tests.fakes.host_service import FakeService, MemoryVolume
from tests.fakes.nbd_client import (
    DISCONNECT,
    FLUSH,
    READ,
    TRIM,
    WRITE,
    WRITE_ZEROES,
    NbdClient,
)
from tests.tally import count

SIZE = 8 << 20
EIO, EINVAL, ENOSPC, ESHUTDOWN = 5, 22, 28, 108


class Site:
    """A served fake group with two volumes."""

    def __init__(self, path: Path) -> None:
        self.path = path / "orders.nbd"
        self.db = MemoryVolume("db", 1, SIZE)
        self.wal = MemoryVolume("wal", 2, SIZE)
        self.service = FakeService([self.db, self.wal])
        self.server = NbdServer(self.service, [listen_unix(self.path)])
        self.server.start()

    def client(self, export: str | None = "db") -> NbdClient:
        return NbdClient(self.path, export)

    def close(self) -> None:
        self.server.close()
        self.service.close()


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    served = Site(tmp_path)
    yield served
    served.close()


def _wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline, "condition did not come true in 20 s"
        time.sleep(0.002)


def _pattern(length: int, seed: int = 1) -> bytes:
    return random.Random(seed).randbytes(length)


@pytest.mark.parametrize("length", [512, 4096, 65536, 262144, 1 << 20, 3 * 1024 * 1024 + 512])
def test_write_of_any_length_reads_back(site: Site, length: int) -> None:
    with site.client() as client:
        content = _pattern(length)
        assert client.write(512, content) == 0
        assert client.read(512, length) == content
        assert site.db.content[512 : 512 + length] == content
        assert client.read(0, 512) == bytes(512)


def test_two_exports_are_two_volumes(site: Site) -> None:
    with site.client("db") as db, site.client("wal") as wal:
        assert db.write(0, b"d" * 512) == 0
        assert wal.write(0, b"w" * 512) == 0
    assert site.db.content[:512] == b"d" * 512
    assert site.wal.content[:512] == b"w" * 512


def test_requests_in_one_segment_are_submitted_together(site: Site) -> None:
    with site.client() as client:
        site.service.hold()
        stream = b"".join(
            struct.pack(">IHHQQI", 0x25609513, 0, WRITE, cookie, cookie * 512, 512) + bytes(512)
            for cookie in range(100)
        )
        client.socket.sendall(stream)
        _wait_until(lambda: site.service.waiting_count == 100)
        site.service.let_go()
        assert sorted(client.reply()[0] for _ in range(100)) == list(range(100))
    assert site.service.largest_batch == 100


def test_reads_and_flush_are_answered_while_the_commit_stalls(site: Site) -> None:
    with site.client() as client:
        assert client.write(0, b"x" * 512) == 0
        site.service.hold()
        held = client.send(WRITE, 512, 512, bytes(512))
        assert client.read(0, 512) == b"x" * 512
        assert client.ask(FLUSH)[0] == 0
        site.service.let_go()
        assert client.reply()[0] == held


def test_client_with_one_request_at_a_time_is_committed_by_its_connection(site: Site) -> None:
    with site.client() as client:
        for number in range(STREAK + 5):
            assert client.write(512 * number, b"x" * 512) == 0
    assert site.service.submitted_alone == 5


def test_client_that_sends_before_its_answer_is_lone_no_more(site: Site) -> None:
    taken, sent = threading.Event(), threading.Event()
    site.service.before_alone = lambda: (taken.set(), sent.wait(20))
    with site.client() as client:
        for number in range(STREAK):
            assert client.write(512 * number, b"x" * 512) == 0
        early = [client.send(WRITE, 0, 512, bytes(512))]
        assert taken.wait(20)
        early.append(client.send(WRITE, 0, 512, bytes(512)))
        sent.set()
        assert [client.reply()[0] for _ in early] == early
        assert site.service.submitted_alone == 1
        for number in range(STREAK - 1):
            assert client.write(512 * number, b"y" * 512) == 0
        assert site.service.submitted_alone == 1
        assert client.write(0, b"z" * 512) == 0
        assert site.service.submitted_alone == 2


def test_payload_stays_unchanged_until_the_answer(site: Site) -> None:
    contents = {offset: _pattern(40960, offset) for offset in range(0, SIZE, 40960)}
    with site.client() as client:
        site.service.hold()
        lengths = {
            client.send(WRITE, offset, len(content[: SIZE - offset]), content[: SIZE - offset])
            for offset, content in contents.items()
        }
        site.service.let_go()
        assert {client.reply()[0] for _ in lengths} == lengths
    assert site.db.content == b"".join(contents.values())[:SIZE]


def test_random_requests_in_flight_equal_a_model(site: Site) -> None:
    generator = random.Random(7)
    model = bytearray(SIZE)
    with site.client() as client:
        for _ in range(60):
            regions = random.Random(generator.random()).sample(range(16), 6)
            lengths: dict[int, int] = {}
            expected: dict[int, bytes] = {}
            for region in regions:
                start = region * (SIZE // 16) + generator.randrange(64) * 512
                kind = generator.choice([WRITE, WRITE, READ, TRIM, WRITE_ZEROES])
                # This client does not read while it sends: its replies must fit the socket.
                length = generator.randrange(1, 50 if kind == READ else 900) * 512
                payload = generator.randbytes(length) if kind == WRITE else b""
                cookie = client.send(kind, start, length, payload)
                if kind == READ:
                    lengths[cookie], expected[cookie] = length, bytes(model[start : start + length])
                else:
                    model[start : start + length] = payload or bytes(length)
            for _ in regions:
                cookie, error, content = client.reply(lengths)
                assert error == 0
                assert content == expected.get(cookie, b"")
    assert site.db.content == model


@pytest.mark.parametrize(
    ("command", "offset", "length", "flags", "error"),
    [
        (READ, 1, 512, 0, EINVAL),
        (READ, SIZE, 512, 0, EINVAL),
        (READ, 0, 0xFFFFFE00, 0, EINVAL),
        (WRITE, 100, 512, 0, EINVAL),
        (WRITE, SIZE, 512, 0, ENOSPC),
        (WRITE, SIZE - 512, 1 << 20, 0, ENOSPC),
        (WRITE, 0, 512, 1 << 9, EINVAL),
        (TRIM, 0, 0xFFFFFE00, 0, EINVAL),
        (WRITE_ZEROES, (1 << 64) - 512, 512, 0, ENOSPC),
        (5, 0, 512, 0, EINVAL),
        (7, 0, 512, 0, EINVAL),
        (0xFFFF, 0, 0xFFFFFFFF, 0xFFFF, EINVAL),
    ],
)
def test_bad_request_is_refused_and_the_connection_goes_on(
    site: Site, command: int, offset: int, length: int, flags: int, error: int
) -> None:
    with site.client() as client:
        payload = bytes(length) if command == WRITE else b""
        assert client.ask(command, offset, length, payload, flags)[0] == error
        assert client.write(0, b"y" * 512) == 0
        assert client.read(0, 512) == b"y" * 512
    count("F41")


def test_failed_read_is_an_error_and_never_zeros(site: Site) -> None:
    site.db.bad_offset = 4096
    with site.client() as client:
        assert client.ask(READ, 4096, 512)[0] == EIO
        assert client.ask(READ, 0, 4096)[0] == 0
    count("F13")


def test_read_that_fails_in_the_middle_of_a_long_reply_ends_the_connection(site: Site) -> None:
    site.db.bad_offset = 1 << 20
    with site.client() as client:
        lengths = {client.send(READ, 0, 2 << 20): 2 << 20}
        with pytest.raises(ConnectionError):
            client.reply(lengths)
    count("F13")


@pytest.mark.parametrize(
    ("failure", "error"),
    [(HostFailure.MEDIUM_ERROR, EIO), (HostFailure.NOT_READY, ESHUTDOWN)],
)
@pytest.mark.parametrize("length", [512, 1 << 20])
def test_refused_write_is_answered_with_its_error(
    site: Site, failure: HostFailure, error: int, length: int
) -> None:
    site.service.fail_with = failure
    with site.client() as client:
        assert client.write(0, bytes(length)) == error


def test_client_that_never_reads_replies_holds_up_nobody(site: Site) -> None:
    with site.client() as deaf, site.client() as other:
        deaf.socket.settimeout(1)
        flood = struct.pack(">IHHQQI", 0x25609513, 0, WRITE, 1, 0, 512) + bytes(512)
        with pytest.raises(TimeoutError):
            while True:
                deaf.socket.sendall(flood * 64)
        assert other.write(4096, b"z" * 512) == 0
        assert other.read(4096, 512) == b"z" * 512
    count("F41")


def test_slow_clients_in_the_middle_of_a_write_hold_up_nobody(site: Site) -> None:
    slow = [site.client() for _ in range(40)]
    for client in slow:
        client.socket.sendall(struct.pack(">IHHQQI", 0x25609513, 0, WRITE, 1, 0, 1 << 20))
        client.socket.sendall(bytes(400_000))
    with site.client() as other:
        content = _pattern(4 << 20)
        assert other.write(0, content) == 0
        assert other.read(0, len(content)) == content
    for client in slow:
        client.socket.close()
    count("F41")


def test_more_clients_than_the_limit_are_refused(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server_module, "MAX_CONNECTIONS", 2)
    with site.client() as first, site.client():
        with pytest.raises(ConnectionError):
            site.client()
        assert first.write(0, bytes(512)) == 0
    count("F41")


def _garbage_streams() -> list[bytes]:
    flags = struct.pack(">I", 3)
    go = b"IHAVEOPT" + struct.pack(">II", 7, 8) + struct.pack(">I", 2) + b"db" + bytes(2)
    return [
        b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n" + bytes(100),
        struct.pack(">I", 0xFFFFFFFF),
        flags + b"IHAVEOPT" + struct.pack(">II", 1, 0xFFFFFFFF),
        flags + b"IHAVEOPT" + struct.pack(">II", 1, 3) + b"\xff\xfe\xfd",
        flags + b"IHAVEOPT" + struct.pack(">II", 1, 4) + b"none",
        flags + (b"IHAVEOPT" + struct.pack(">II", 99, 0)) * 100,
        flags + b"HAVEIOPT" + struct.pack(">II", 7, 0),
        flags + go + bytes(28),
        flags + go + struct.pack(">IHHQQI", 0x25609513, 0, WRITE, 1, 0, 0xFFFFFFFF),
    ]


@pytest.mark.parametrize("stream", _garbage_streams())
def test_malformed_stream_closes_that_connection_only(site: Site, stream: bytes) -> None:
    with site.client() as good:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as bad:
            bad.connect(str(site.path))
            bad.settimeout(20)
            bad.sendall(stream)
            _read_to_end(bad)
        assert good.write(0, bytes(512)) == 0
    count("F41")


def test_random_bytes_never_stop_the_server(site: Site) -> None:
    generator = random.Random(41)
    valid = struct.pack(">I", 3) + b"IHAVEOPT" + struct.pack(">IIIH", 7, 8, 2, 0x6462) + bytes(2)
    for _ in range(200):
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as bad:
            bad.connect(str(site.path))
            stream = bytearray(valid + generator.randbytes(generator.randrange(300)))
            for _ in range(generator.randrange(4)):
                stream[generator.randrange(len(stream))] = generator.randrange(256)
            bad.sendall(stream)
            bad.shutdown(socket.SHUT_WR)
            _read_to_end(bad)
        count("F41")
    with site.client() as good:
        assert good.write(0, b"!" * 512) == 0


def _read_to_end(connection: socket.socket) -> None:
    try:
        while connection.recv(65536):
            pass
    except ConnectionResetError:
        return  # closed with unread bytes: as good as an end


def test_handshake_answers_list_info_and_unknown_options(site: Site) -> None:
    with site.client(None) as client:
        assert client.option(8) == [(0x80000001, b"not supported")]
        names = [content[4:] for kind, content in client.option(3) if kind == 2]
        assert names == [b"db", b"wal"]
        assert client.option(3, b"x")[0][0] == 0x80000003
        assert client.option(6, b"\0\0\0\xff")[0][0] == 0x80000003
        assert client.option(6, struct.pack(">I", 4) + b"nope" + bytes(2))[0] == (
            0x80000006,
            b"exports: db, wal",
        )
        replies = client.option(6, struct.pack(">I", 2) + b"db" + struct.pack(">HH", 1, 3))
        assert [kind for kind, _ in replies] == [3, 3, 1]
        assert replies[0][1][2:10] == struct.pack(">Q", SIZE)
        assert replies[1][1] == struct.pack(">HIII", 3, 512, 4096, 32 << 20)
        assert client.option(2) == [(1, b"")]


@pytest.mark.parametrize("flags", [1, 3])
def test_export_name_of_old_clients_is_served(site: Site, flags: int) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        client.connect(str(site.path))
        client.settimeout(20)
        client.sendall(struct.pack(">I", flags) + b"IHAVEOPT" + struct.pack(">II", 1, 2) + b"db")
        client.sendall(struct.pack(">IHHQQI", 0x25609513, 0, FLUSH, 5, 0, 0))
        length = 18 + 10 + (0 if flags & 2 else 124) + 16
        received = b""
        while len(received) < length:
            received += client.recv(length - len(received))
    assert received[18:26] == struct.pack(">Q", SIZE)
    assert received[-16:] == struct.pack(">IIQ", 0x67446698, 0, 5)


def test_disconnect_with_writes_in_flight_frees_their_memory(site: Site) -> None:
    site.service.hold()
    with site.client() as client:
        client.send(WRITE, 0, 1 << 20, bytes(1 << 20))
        client.send(DISCONNECT, 0, 0)
        _wait_until(lambda: site.service.waiting_count >= 4)
    site.service.let_go()
    with site.client() as again:
        assert again.write(0, bytes(4 << 20)) == 0


def test_chunk_pool_exhausted_leaves_every_connection_its_reserve() -> None:
    pool = ChunkPool(shared_chunks=1)
    greedy, modest = ChunkAllowance(pool), ChunkAllowance(pool)
    taken = [pool.acquire(greedy) for _ in range(RESERVED_CHUNKS + 1)]
    assert pool.acquire(greedy, timeout=0.01) is None
    assert all(pool.acquire(modest) for _ in range(RESERVED_CHUNKS))
    assert pool.acquire(modest, timeout=0.01) is None
    assert taken[0] is not None
    pool.release(greedy, taken[0])
    assert pool.acquire(greedy, timeout=0.01) is taken[0]


def test_listen_unix_served_by_another_is_busy(site: Site) -> None:
    with pytest.raises(DeviceBusy, match="another process"):
        listen_unix(site.path)


def test_listen_unix_left_over_socket_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "left.nbd"
    listen_unix(path).close()
    assert path.exists()
    listen_unix(path).close()


def test_listen_unix_long_path_is_refused_with_its_limit(tmp_path: Path) -> None:
    with pytest.raises(DeviceUnusable, match="107"):
        listen_unix(tmp_path / ("x" * 120))

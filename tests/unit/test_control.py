"""The control socket: answers, refusals, bad requests, stale and foreign sockets."""

from __future__ import annotations

import json
import os
import socket
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from replicator.daemon.control import (
    LONGEST_REQUEST,
    MOST_CONNECTIONS,
    AnsweredError,
    ControlServer,
    ask,
)
from replicator.errors import DaemonUnreachable, DeviceBusy, DeviceUnusable, Refused
from tests import tally


def _echo(arguments: dict[str, object]) -> object:
    return {"you": arguments}


def _refuse(arguments: dict[str, object]) -> object:
    raise Refused("not now")


def _break(arguments: dict[str, object]) -> object:
    raise ZeroDivisionError("secret detail")


HANDLERS = {"echo": _echo, "refuse": _refuse, "break": _break}


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ControlServer]:
    server = ControlServer(str(tmp_path / "orders.sock"), HANDLERS)
    server.start()
    yield server
    server.close()


def _raw(path: str, content: bytes) -> dict[str, object]:
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(10)
        connection.connect(path)
        if content:
            connection.sendall(content)
        with connection.makefile("rb") as lines:
            return json.loads(lines.readline())


def test_control_command_known_returns_the_handlers_result(server: ControlServer) -> None:
    assert ask(server.path, "echo", {"n": 1}, kind=dict) == {"you": {"n": 1}}


def test_control_command_refused_keeps_message_and_exit_code(server: ControlServer) -> None:
    with pytest.raises(AnsweredError, match=r"^not now$") as refusal:
        ask(server.path, "refuse", kind=dict)
    assert refusal.value.exit_code == Refused.exit_code


def test_control_command_broken_hides_the_traceback_and_goes_on(server: ControlServer) -> None:
    with pytest.raises(AnsweredError, match="internal error") as refusal:
        ask(server.path, "break", kind=dict)
    assert refusal.value.exit_code == 70
    assert "secret" not in str(refusal.value)
    assert ask(server.path, "echo", kind=dict) == {"you": {}}


@pytest.mark.parametrize(
    ("request_line", "words"),
    [
        (b"\n", "malformed request"),
        (b"hello\n", "malformed request"),
        (b"[]\n", "malformed request"),
        (b'{"command": 1}\n', "malformed request"),
        (b'{"command": "echo", "arguments": []}\n', "malformed request"),
        (b'{"command": "\xff"}\n', "malformed request"),
        (b'{"command": "dance"}\n', "unknown command 'dance', expected one of: break, echo"),
        (b"x" * (LONGEST_REQUEST + 1), "request longer than"),
    ],
)
def test_control_request_malformed_is_refused(
    server: ControlServer, request_line: bytes, words: str
) -> None:
    answer = _raw(server.path, request_line)
    assert answer["ok"] is False
    assert answer["exit_code"] == 2
    assert words in str(answer["error"])


def test_control_socket_mode_lets_owner_and_group_in(server: ControlServer) -> None:
    assert stat.S_IMODE(os.stat(server.path).st_mode) == 0o660


def test_control_server_too_many_clients_are_refused(server: ControlServer) -> None:
    clients = []
    for _ in range(MOST_CONNECTIONS):
        client = socket.socket(socket.AF_UNIX)
        client.settimeout(10)
        client.connect(server.path)
        client.sendall(b'{"command": "echo"}\n')
        assert client.recv(100)
        clients.append(client)
    assert "more than" in str(_raw(server.path, b"")["error"])
    for client in clients:
        client.close()


def test_control_server_stale_socket_is_replaced(tmp_path: Path) -> None:
    path = str(tmp_path / "orders.sock")
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(path)
    with pytest.raises(DaemonUnreachable, match="no replicatord answers here"):
        ask(path, "echo", kind=dict)
    server = ControlServer(path, HANDLERS)
    server.start()
    assert ask(path, "echo", kind=dict) == {"you": {}}
    server.close()
    assert not os.path.exists(path)


def test_control_server_second_one_is_refused(server: ControlServer) -> None:
    with pytest.raises(DeviceBusy, match="another replicatord answers"):
        ControlServer(server.path, HANDLERS).start()
    tally.count("F45")


def test_control_server_folder_missing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DeviceUnusable, match="cannot make the control socket"):
        ControlServer(str(tmp_path / "no" / "orders.sock"), HANDLERS).start()


def test_control_ask_nobody_there_says_how_to_start(tmp_path: Path) -> None:
    with pytest.raises(DaemonUnreachable, match="systemctl start"):
        ask(str(tmp_path / "orders.sock"), "echo", kind=dict)


def test_control_ask_silent_daemon_ends_at_its_deadline(tmp_path: Path) -> None:
    path = str(tmp_path / "orders.sock")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()
        with pytest.raises(DaemonUnreachable, match="no answer within"):
            ask(path, "echo", kind=dict, timeout_seconds=0.05)


def test_control_ask_other_version_says_so(server: ControlServer) -> None:
    with pytest.raises(DaemonUnreachable, match="not one of this version"):
        ask(server.path, "echo", kind=int)

"""The control socket: one JSON object a line, over a Unix socket that one Unix group may use.

Request ``{"command": "status", "arguments": {...}}``; answer ``{"ok": true, "result": ...}`` or
``{"ok": false, "error": "...", "exit_code": N}``. Who may connect is decided by the socket's mode
(0660, group ``towline`` where that group exists); there is no other authentication. Everything is
bounded: connections, the length of a line, how long a silent client is kept.
"""

from __future__ import annotations

import contextlib
import grp
import logging
import os
import socket
import threading
from collections.abc import Callable, Mapping
from typing import TypeVar

import msgspec

from replicator.codec.naming import CONTROL_UNIX_GROUP
from replicator.errors import DaemonUnreachable, DeviceBusy, DeviceUnusable, TowlineError

log = logging.getLogger(__name__)

Handler = Callable[[dict[str, object]], object]

MOST_CONNECTIONS = 16
LONGEST_REQUEST = 64 << 10
LONGEST_ANSWER = 4 << 20
SILENT_CLIENT_SECONDS = 60.0
_ACCEPT_RETRY_SECONDS = 0.1
SOCKET_MODE = 0o660
INTERNAL_ERROR = 70
"""sysexits.h EX_SOFTWARE: our own mistake, as opposed to the classes of errors.py."""

_T = TypeVar("_T")


class Request(msgspec.Struct, frozen=True):
    """One line from a client."""

    command: str
    arguments: dict[str, object] = {}


class Answer(msgspec.Struct, frozen=True, omit_defaults=True):
    """One line to a client; ``result`` is there if and only if ``ok``."""

    ok: bool
    result: msgspec.Raw = msgspec.Raw(b"null")
    error: str = ""
    exit_code: int = 0


_REQUEST = msgspec.json.Decoder(Request)
_ANSWER = msgspec.json.Decoder(Answer)
_DECODING = threading.Lock()
"""Two threads may not be the first ones to decode a type at once (codec/__init__.py)."""


class ControlServer:
    """Answers requests with ``handlers``, one thread a connection.

    A handler gets the arguments and returns anything that msgspec encodes; it is called from
    several threads at once. A TowlineError becomes the answer's error; anything else is logged
    with its traceback and answered as an internal error.
    """

    def __init__(self, path: str, handlers: Mapping[str, Handler]) -> None:
        self.path = path
        self._handlers = handlers
        self._listener: socket.socket | None = None
        self._connections: set[socket.socket] = set()
        self._lock = threading.Lock()
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._accept, name="control", daemon=True)

    def start(self) -> None:
        """Listen, taking the place of a socket that nobody answers on.

        Raises DeviceBusy if another process answers there, DeviceUnusable if the socket cannot
        be made. The socket appears with its final mode, never wider.
        """
        if _answers(self.path):
            raise DeviceBusy(
                f"{self.path}: another replicatord answers on this control socket; stop it first"
            )
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        unfinished = f"{self.path}~"
        try:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(unfinished)
            os.fchmod(listener.fileno(), 0o600)
            listener.bind(unfinished)
            _let_group_in(unfinished)
            listener.listen(MOST_CONNECTIONS)
            os.rename(unfinished, self.path)
        except OSError as error:
            listener.close()
            raise DeviceUnusable(
                f"{self.path}: cannot make the control socket: {error.strerror or error}"
            ) from error
        self._listener = listener
        self._thread.start()

    def close(self) -> None:
        """Stop listening, hang up on every client, and remove the socket."""
        if self._listener is None:
            return
        self._closing.set()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.path)
        with self._lock:
            open_now = list(self._connections)
        for connection in open_now:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        self._thread.join()

    def _accept(self) -> None:
        assert self._listener is not None
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError as error:
                if self._closing.wait(_ACCEPT_RETRY_SECONDS):
                    return
                log.warning("control connection not accepted reason=%s", error)
                continue
            with self._lock:
                crowded = len(self._connections) >= MOST_CONNECTIONS
                if not crowded:
                    self._connections.add(connection)
            if crowded:
                with contextlib.suppress(OSError), connection:
                    _send(connection, _failure(f"more than {MOST_CONNECTIONS} connections", 15))
                continue
            threading.Thread(
                target=self._serve, args=(connection,), name="control-client", daemon=True
            ).start()

    def _serve(self, connection: socket.socket) -> None:
        try:
            connection.settimeout(SILENT_CLIENT_SECONDS)
            with connection, connection.makefile("rb") as lines:
                while line := lines.readline(LONGEST_REQUEST + 1):
                    _send(connection, self._answer(line))
                    if len(line) > LONGEST_REQUEST:
                        return
        except OSError as error:
            log.debug("control client gone reason=%s", error)
        finally:
            with self._lock:
                self._connections.discard(connection)

    def _answer(self, line: bytes) -> Answer:
        if len(line) > LONGEST_REQUEST:
            return _failure(f"request longer than {LONGEST_REQUEST} bytes", 2)
        try:
            request = _REQUEST.decode(line)
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            return _failure(f"malformed request: {error}", 2)
        handler = self._handlers.get(request.command)
        if handler is None:
            known = ", ".join(sorted(self._handlers))
            return _failure(f"unknown command {request.command!r}, expected one of: {known}", 2)
        try:
            result = handler(request.arguments)
            return Answer(ok=True, result=msgspec.Raw(msgspec.json.encode(result)))
        except TowlineError as error:
            return _failure(str(error), error.exit_code)
        except Exception:
            log.exception("control command failed command=%s", request.command)
            return _failure("internal error; its traceback is in the daemon's log", INTERNAL_ERROR)


def ask(
    path: str,
    command: str,
    arguments: Mapping[str, object] | None = None,
    *,
    kind: type[_T],
    timeout_seconds: float = 10.0,
) -> _T:
    """Send one command to the daemon at ``path`` and return its result as ``kind``.

    Raises DaemonUnreachable if nobody answers in time, AnsweredError if the daemon refused.
    """
    request = msgspec.json.encode(Request(command, dict(arguments or {}))) + b"\n"
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.settimeout(timeout_seconds)
            connection.connect(path)
            with contextlib.suppress(BrokenPipeError):  # a refusal may stand there to be read
                connection.sendall(request)
            with connection.makefile("rb") as lines:
                line = lines.readline(LONGEST_ANSWER)
    except OSError as error:
        raise DaemonUnreachable(
            f"{path}: {_why_unreachable(path, error, timeout_seconds)}"
        ) from error
    try:
        answer = _ANSWER.decode(line)
        if answer.ok:
            with _DECODING:
                return msgspec.json.decode(answer.result, type=kind)
    except msgspec.MsgspecError as error:
        raise DaemonUnreachable(
            f"{path}: the answer is not one of this version ({error}); is the daemon older or "
            "newer than this command, or did it end?"
        ) from error
    raise AnsweredError(answer.error, answer.exit_code)


class AnsweredError(TowlineError):
    """The daemon refused a command; its message and exit code are those of its own error."""

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code


def _why_unreachable(path: str, error: OSError, timeout_seconds: float) -> str:
    group = os.path.basename(path).removesuffix(".sock")
    match error:
        case FileNotFoundError() | ConnectionRefusedError():
            return f"no replicatord answers here; start it: systemctl start replicatord@{group}"
        case PermissionError():
            return f"permission denied; run as root or as a member of group {CONTROL_UNIX_GROUP}"
        case TimeoutError():
            return f"no answer within {timeout_seconds:g} s; look at the daemon's log"
        case _:
            return f"cannot talk to replicatord: {error.strerror or error}"


def _answers(path: str) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(path)
        except TimeoutError:
            return True
        except OSError:
            return False
        return True


def _let_group_in(path: str) -> None:
    try:
        os.chown(path, -1, grp.getgrnam(CONTROL_UNIX_GROUP).gr_gid)
    except (KeyError, PermissionError) as error:
        log.debug("control socket keeps its group path=%s reason=%s", path, error)
    os.chmod(path, SOCKET_MODE)


def _failure(message: str, exit_code: int) -> Answer:
    return Answer(ok=False, error=message, exit_code=exit_code)


def _send(connection: socket.socket, answer: Answer) -> None:
    connection.sendall(msgspec.json.encode(answer) + b"\n")

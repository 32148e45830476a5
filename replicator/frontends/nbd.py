"""The NBD front end: a group's volumes on a Unix socket (and on loopback TCP if asked).

The export name is the volume's name. One thread accepts, one serves each connection; what a client
does wrong ends its own connection only.
"""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import threading
from pathlib import Path

from replicator.codec.nbd import ProtocolViolation
from replicator.errors import DeviceBusy, DeviceUnusable
from replicator.frontends.nbd_connection import NbdConnection
from replicator.frontends.nbd_handshake import negotiate
from replicator.frontends.nbd_memory import ChunkPool
from replicator.model import HostService

log = logging.getLogger(__name__)

MAX_CONNECTIONS = 64
_MAX_SOCKET_PATH = 107  # sun_path of unix(7), without its NUL


def listen_unix(path: Path) -> socket.socket:
    """Return a listening Unix socket with mode 0600, in place of one that nobody serves.

    Raises DeviceBusy if another process answers there, DeviceUnusable if it cannot be made.
    """
    if len(os.fsencode(path)) > _MAX_SOCKET_PATH:
        raise DeviceUnusable(
            f"{path}: a Unix socket's path has at most {_MAX_SOCKET_PATH} bytes; "
            "use a shorter directory"
        )
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        if path.exists() and _is_served(path):
            raise DeviceBusy(f"{path}: another process serves this socket; stop it first")
        path.unlink(missing_ok=True)
        listener.bind(os.fspath(path))
        path.chmod(0o600)
        listener.listen(MAX_CONNECTIONS)
    except OSError as error:
        listener.close()
        raise DeviceUnusable(f"{path}: cannot listen: {error.strerror}") from error
    except DeviceBusy:
        listener.close()
        raise
    return listener


def listen_loopback(port: int) -> socket.socket:
    """Return a TCP socket that listens on 127.0.0.1; DeviceBusy if the port is in use."""
    try:
        return socket.create_server(("127.0.0.1", port), backlog=MAX_CONNECTIONS)
    except OSError as error:
        raise DeviceBusy(f"127.0.0.1:{port}: cannot listen: {error.strerror}") from error


def _is_served(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        return probe.connect_ex(os.fspath(path)) == 0


class NbdServer:
    """Serves the volumes of one group to NBD clients until it is closed."""

    def __init__(self, service: HostService, listeners: list[socket.socket]) -> None:
        self._service = service
        self._listeners = listeners
        self._pool = ChunkPool()
        self._lock = threading.Lock()
        self._connections: set[socket.socket] = set()
        self._threads: list[threading.Thread] = []
        self._closing = False

    def start(self) -> None:
        """Accept clients from now on."""
        for listener in self._listeners:
            thread = threading.Thread(target=self._accept, args=(listener,), name="nbd-accept")
            thread.daemon = True
            thread.start()
            self._threads.append(thread)

    def close(self) -> None:
        """Stop accepting and end every connection; unanswered requests stay unanswered."""
        self._closing = True
        for listener in self._listeners:
            listener.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()
        with self._lock:
            for connection in self._connections:
                _end(connection)
        for listener in self._listeners:
            listener.close()

    def _accept(self, listener: socket.socket) -> None:
        while not self._closing:
            try:
                connection, _ = listener.accept()
            except OSError as error:
                if self._closing:
                    return
                log.warning("nbd accept failed error=%r", error.strerror)
                threading.Event().wait(0.1)  # out of descriptors: do not spin
                continue
            self._admit(connection)

    def _admit(self, connection: socket.socket) -> None:
        with self._lock:
            full = len(self._connections) >= MAX_CONNECTIONS
            if not full:
                self._connections.add(connection)
        if full:
            log.warning("nbd connection refused reason=too-many limit=%d", MAX_CONNECTIONS)
            connection.close()
            return
        try:
            threading.Thread(
                target=self._serve, args=(connection,), name="nbd-connection", daemon=True
            ).start()
        except RuntimeError as error:
            log.warning("nbd connection refused reason=%r", str(error))
            self._forget(connection)

    def _serve(self, connection: socket.socket) -> None:
        try:
            if connection.family == socket.AF_INET:
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            volume = negotiate(connection, self._service.volumes)
            if volume is not None:
                log.info("nbd client connected volume=%s", volume.name)
                NbdConnection(connection, self._service, volume, self._pool).serve()
        except ProtocolViolation as violation:
            log.warning("nbd client disconnected reason=%r", str(violation))
        except OSError as error:
            log.info("nbd client disconnected reason=%r", str(error))
        finally:
            self._forget(connection)

    def _forget(self, connection: socket.socket) -> None:
        with self._lock:
            self._connections.discard(connection)
        connection.close()


def _end(connection: socket.socket) -> None:
    with contextlib.suppress(OSError):  # it may have gone already
        connection.shutdown(socket.SHUT_RDWR)

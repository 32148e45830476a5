"""On a site: ask replicatord on its control socket, print its answer (``ask.py GROUP status``)."""

import json
import socket
import sys

LIMIT_SECONDS = 20.0

with socket.socket(socket.AF_UNIX) as connection:
    connection.settimeout(LIMIT_SECONDS)
    connection.connect(f"/run/towline/{sys.argv[1]}.sock")
    connection.sendall(json.dumps({"command": sys.argv[2]}).encode() + b"\n")
    print(connection.makefile().readline(), end="")

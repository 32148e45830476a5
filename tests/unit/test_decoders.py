"""Decoders are built at import: threads that decode a type for the first time do not crash."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from replicator.codec.history import Catalog, History, encode_catalog

ROOT = Path(__file__).parents[2]
THREADED = ("codec", "journal", "movers", "group", "daemon", "frontends", "seams", "target")
"""Packages whose code runs in the daemon's threads."""

EMPTY = Catalog("orders", bytes(16), History(()), ())
FIRST_DECODING = f"""
import sys, threading
from replicator.codec.history import decode_catalog
sys.setswitchinterval(1e-6)
gate = threading.Barrier(8)
def first():
    gate.wait()
    decode_catalog({encode_catalog(EMPTY)!r})
threads = [threading.Thread(target=first) for _ in range(8)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
"""


def test_catalog_first_decoded_by_many_threads_at_once_is_no_crash() -> None:
    for _ in range(5):
        ended = subprocess.run([sys.executable, "-c", FIRST_DECODING], cwd=ROOT, check=False)
        assert ended.returncode == 0


def test_no_threaded_code_builds_a_decoder_when_it_is_first_needed() -> None:
    """``ask`` alone takes its type from the caller: it decodes under a lock."""
    found = []
    for package in THREADED:
        for path in sorted((ROOT / "replicator" / package).rglob("*.py")):
            for line in path.read_text().splitlines():
                if re.search(r"msgspec\.\w+\.decode\(.*type=", line):
                    found.append(f"{path.name}: {line.strip()}")
    assert found == ["control.py: return msgspec.json.decode(answer.result, type=kind)"]

"""Runs on the lab's host: real files on one volume and SQLite on the other, for some seconds.

What was answered (fsync or commit returned) is noted in RUN/witness.json on the host's own disk,
outside the replicated volumes. Only the standard library is needed.

    python3 workload.py prepare DB_DEVICE WAL_DEVICE   make file systems where there are none, mount
    python3 workload.py write RUN SECONDS              write for so long
    python3 workload.py rest                           flush and unmount: nothing more is written
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

FILES = Path("/srv/db")
DATABASE = Path("/srv/wal")
WITNESS = Path("/var/tmp/towline-witness")
TREE = Path("/usr/lib/python3.11/email")
LARGEST_FILE = 256 << 10
KEPT_FILES = 400


def main() -> None:
    """Run the command."""
    command, *words = sys.argv[1:]
    if command == "prepare":
        prepare(FILES, words[0])
        prepare(DATABASE, words[1])
    elif command == "write":
        print(json.dumps(write(words[0], float(words[1]))))
    elif command == "rest":
        os.sync()
        for place in (FILES, DATABASE):
            if os.path.ismount(place):
                subprocess.run(["umount", str(place)], check=True)
    else:
        raise SystemExit(__doc__)


def prepare(place: Path, device: str) -> None:
    """Mount the device, with a new ext4 if it holds nothing."""
    if os.path.ismount(place):
        return
    if subprocess.run(["blkid", "-p", device], capture_output=True).returncode == 2:
        subprocess.run(["mkfs.ext4", "-q", device], check=True)
    place.mkdir(parents=True, exist_ok=True)
    subprocess.run(["mount", device, str(place)], check=True)


def write(run: str, seconds: float) -> dict[str, object]:
    """Write until the time is over; return and keep what was answered."""
    folder = FILES / run
    shutil.rmtree(FILES / "old", ignore_errors=True)
    for previous in FILES.glob("run-*"):
        shutil.rmtree(previous)
    shutil.copytree(TREE, folder / "tree")
    os.sync()
    database = sqlite3.connect(DATABASE / "orders.sqlite", timeout=600)
    database.execute("PRAGMA journal_mode=DELETE")
    database.execute("PRAGMA synchronous=FULL")
    database.execute("CREATE TABLE IF NOT EXISTS entry (run TEXT, number INTEGER, body BLOB)")
    database.commit()
    rng = random.Random(run)
    digests = {str(path.relative_to(FILES)): digest(path) for path in sorted(folder.rglob("*.py"))}
    end, rows, slowest = time.monotonic() + seconds, 0, 0.0
    while time.monotonic() < end:
        began = time.monotonic()
        path = folder / f"{rows % KEPT_FILES:04d}.bin"
        store(path, rng.randbytes(rng.randrange(1, LARGEST_FILE)))
        digests[str(path.relative_to(FILES))] = digest(path)
        body = rng.randbytes(rng.randrange(64, 2048))
        database.execute("INSERT INTO entry VALUES (?, ?, ?)", (run, rows, body))
        database.commit()
        rows += 1
        slowest = max(slowest, time.monotonic() - began)
    total = database.execute("SELECT count(*) FROM entry").fetchone()[0]
    database.close()
    witness = {"run": run, "files": digests, "rows": rows, "all_rows": total}
    WITNESS.mkdir(exist_ok=True)
    (WITNESS / f"{run}.json").write_text(json.dumps(witness))
    return {"files": len(digests), "rows": rows, "slowest_seconds": round(slowest, 1)}


def store(path: Path, content: bytes) -> None:
    """Write a file durably."""
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


if __name__ == "__main__":
    main()

"""Runs on a site that follows: compare its volumes with what the host wrote, without mounting.

    python3 verify.py WITNESS.json DB_DEVICE WAL_DEVICE

Reads only: ``e2fsck -fn``, then every file with debugfs. Prints one JSON object; exits 1 when
anything differs.
"""

from __future__ import annotations

import hashlib
import json
import os
import sqlite3
import subprocess
import sys
import tempfile
from pathlib import Path


def main() -> int:
    """Verify and report."""
    witness = json.loads(Path(sys.argv[1]).read_text())
    files_device, database_device = sys.argv[2:4]
    problems = [check(files_device), check(database_device)]
    with tempfile.TemporaryDirectory(dir="/var/tmp") as scratch:
        dump(files_device, f"/{witness['run']}", scratch)
        wrong = [
            name
            for name, digest in witness["files"].items()
            if digest_of(Path(scratch) / name) != digest
        ]
        dump(database_device, "/orders.sqlite", scratch)
        integrity, rows = database_facts(Path(scratch) / "orders.sqlite", witness["run"])
    if wrong:
        problems.append(f"{len(wrong)} files differ, the first is {wrong[0]}")
    if integrity != "ok":
        problems.append(f"SQLite says {integrity}")
    if rows != witness["rows"]:
        problems.append(f"SQLite has {rows} rows of the run, the host committed {witness['rows']}")
    problems = [problem for problem in problems if problem]
    print(json.dumps({"files": len(witness["files"]), "rows": rows, "problems": problems}))
    return 1 if problems else 0


def check(device: str) -> str:
    """Return what e2fsck finds, or nothing."""
    outcome = subprocess.run(["e2fsck", "-fn", device], capture_output=True, text=True)
    return "" if outcome.returncode == 0 else f"e2fsck {device}: {outcome.stdout.strip()[-200:]}"


def dump(device: str, path: str, folder: str) -> None:
    """Copy a file or a folder out of the file system on the device."""
    is_file = "." in os.path.basename(path)
    verb = f"dump {path} {folder}/{path[1:]}" if is_file else f"rdump {path} {folder}"
    subprocess.run(["debugfs", "-R", verb, device], capture_output=True, check=True)


def digest_of(path: Path) -> str:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except FileNotFoundError:
        return "missing"


def database_facts(path: Path, run: str) -> tuple[str, int]:
    """Return SQLite's own verdict and the number of rows of the run."""
    database = sqlite3.connect(path)
    try:
        verdict = str(database.execute("PRAGMA integrity_check").fetchone()[0])
        query = "SELECT count(*) FROM entry WHERE run = ?"
        return verdict, int(database.execute(query, (run,)).fetchone()[0])
    except sqlite3.DatabaseError as error:
        return str(error), 0
    finally:
        database.close()


if __name__ == "__main__":
    sys.exit(main())

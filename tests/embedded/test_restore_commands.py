"""Bookmarks and an operator's hold on restore, told to real daemons by replicatorctl."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from replicator.embedded.daemon import EmbeddedSite
from replicator.embedded.lab import EmbeddedLab, LabPlan
from replicator.errors import Refused, UsageError
from tests.embedded.conftest import MakeLab
from tests.embedded.stamped import StampedWriter

PLAN = LabPlan(volumes={"one": "4MiB", "two": "4MiB"}, journal="32MiB", interval={"fixed": "50ms"})
SIZES = {"one": 4 << 20, "two": 4 << 20}
DEADLINE = 60.0


def ctl(lab: EmbeddedLab, site: str, *words: str) -> subprocess.CompletedProcess[str]:
    program = "import sys; from replicator.cli.main import main; sys.exit(main())"
    command = [sys.executable, "-c", program, "--topology", str(lab.topology_path)]
    return subprocess.run(
        [*command, "--site", site, *words], capture_output=True, text=True, timeout=60
    )


def told(lab: EmbeddedLab, site: str, *words: str) -> dict[str, Any]:
    done = ctl(lab, site, *words, "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def eventually(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + DEADLINE
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.05)


def images(site: EmbeddedSite) -> dict[str, Path]:
    return {name: site.volume_path(name) for name in SIZES}


def test_restore_stops_at_a_bookmark_and_stays_paused_over_kills(make_lab: MakeLab) -> None:
    lab = make_lab(PLAN)
    lab.start()
    a, b, c = (lab.sites[name] for name in "abc")
    stamped = StampedWriter(a.nbd_socket, SIZES, seed=14)
    stop = told(lab, "c", "restore", "stop", "--at", "before-change")
    assert stop["stop_at"] == "bookmark before-change", "one that is yet to come"
    stamped.write_until_cut(300)
    told(lab, "b", "restore", "pause")
    made = told(lab, "a", "bookmark", "before-change")
    before = {name: path.read_bytes() for name, path in images(a).items()}
    stamped.write_until_cut(300)
    eventually(
        lambda: told(lab, "c", "restore", "status")["state"] == "stopped",
        "c stops at the bookmark",
    )
    for name, path in images(c).items():
        assert path.read_bytes() == before[name], "c holds what a held at the bookmark"
    (seen,) = told(lab, "c", "bookmarks")["bookmarks"]
    assert seen == made

    stop = told(lab, "c", "restore", "stop", "--at", "before-change")
    assert stop["stop_at"] == f"position {seen['at']['position']} (bookmark before-change)"

    b.kill()
    b.start()
    eventually(lambda: told(lab, "b", "restore", "status")["state"] == "paused", "b stays paused")
    told(lab, "b", "restore", "resume")
    told(lab, "c", "restore", "resume")

    def caught_up(site: str) -> bool:
        return told(lab, site, "restore", "status")["behind_bytes"] == 0

    for site in (b, c):
        eventually(lambda site=site: caught_up(site.name), f"{site.name} goes on")  # type: ignore[misc]
        assert {name: path.read_bytes() for name, path in images(site).items()} == {
            name: path.read_bytes() for name, path in images(a).items()
        }


def test_restore_and_bookmark_commands_refuse_what_makes_no_sense(make_lab: MakeLab) -> None:
    lab = make_lab(PLAN)
    lab.start()
    StampedWriter(lab.primary.nbd_socket, SIZES, seed=15).write_until_cut(50)
    eventually(
        lambda: int(str(told(lab, "c", "restore", "status")["applied"])) > 0, "c has restored"
    )
    for site, words, code, reason in (
        ("a", ("restore", "pause"), Refused.exit_code, "is the primary: it restores nothing"),
        ("b", ("bookmark", "x"), Refused.exit_code, "only a serving primary"),
        ("a", ("bookmark", "no spaces"), UsageError.exit_code, "1 to 63"),
        ("c", ("restore", "stop", "--at", "0"), Refused.exit_code, "replicatorctl restore to"),
        ("c", ("restore", "stop", "--at", "a b"), UsageError.exit_code, "a bookmark's name"),
    ):
        done = ctl(lab, site, *words)
        assert done.returncode == code, (words, done.stderr)
        assert reason in done.stderr
        assert done.stderr.count("\n") == 1

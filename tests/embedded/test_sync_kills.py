"""Sync links with real processes: kill the primary at any moment, seal, and c misses nothing."""

from __future__ import annotations

import random
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from replicator.embedded.daemon import EmbeddedSite
from replicator.embedded.lab import GROUP, NEAR_SITES, EmbeddedLab, LabPlan
from tests.embedded.conftest import MakeLab
from tests.embedded.stamped import StampedWriter
from tests.tally import count, wanted

SMALL = 8 << 20
_CONTROL = "import sys; from replicator.cli.main import main; sys.exit(main())"


def sync_plan(topology: str, **changes: str) -> LabPlan:
    return LabPlan(
        volumes={"one": "8MiB", "two": "8MiB"},
        journal="32MiB",
        interval={"fixed": "50ms"},
        site_options={"b": {**NEAR_SITES[topology], **changes}},
    )


def images(site: EmbeddedSite) -> dict[str, Path]:
    return {name: site.volume_path(name) for name in ("one", "two")}


def control(lab: EmbeddedLab, site: str, *words: str) -> subprocess.CompletedProcess[str]:
    """Run replicatorctl at a site of the lab."""
    where = ["--topology", str(lab.topology_path), "--site", site, "--group", GROUP]
    return subprocess.run(
        [sys.executable, "-c", _CONTROL, *words, *where],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def eventually(what: str, condition) -> None:  # type: ignore[no-untyped-def]
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.05)


@pytest.mark.parametrize("topology", ["bunker", "sync"])
def test_primary_killed_at_any_moment_then_sealed_c_reaches_the_last_answer(
    make_lab: MakeLab, topology: str
) -> None:
    """Claims 17, 25, 26, 28 (bunker); 29, 37, 38 (sync)."""
    pauses = random.Random(17)
    for round_number in range(wanted("TOWLINE_SYNC_KILLS", 2)):
        lab = make_lab(sync_plan(topology))
        lab.start()
        stamped = StampedWriter(
            lab.primary.nbd_socket, {"one": SMALL, "two": SMALL}, seed=round_number
        )
        writer = threading.Thread(target=stamped.write_until_cut)
        writer.start()
        eventually("an answer", lambda stamped=stamped: stamped.answered_total > 0)
        time.sleep(pauses.uniform(0.0, 0.4))  # the instant of the kill, not a wait for something
        lab.primary.kill()
        writer.join(60)
        b, c = lab.sites["b"], lab.sites["c"]
        b.kill()
        sealed = control(lab, "b", "seal")
        assert sealed.returncode == 0, sealed.stderr
        position = int(sealed.stdout.split("sealed at position ")[1].split()[0])
        b.start()

        def reached(c: EmbeddedSite = c, position: int = position) -> bool:
            own = c.status().own
            return own.restored is not None and own.restored.position == position

        eventually("c drains the sealed ring", reached)
        c.stop()
        stamped.judge(images(c), acknowledged=True)
        if topology == "sync":
            eventually("b restores", lambda b=b, position=position: _restored(b) == position)
            b.stop()
            stamped.judge(images(b), acknowledged=True)
        count(f"kills of the primary, then sealed, {topology}")
        count("F12")
        lab.kill_all()
        for site in lab.sites.values():
            for path in site.folder.iterdir():
                path.unlink()


def _restored(site: EmbeddedSite) -> int:
    own = site.status().own
    return own.restored.position if own.restored else 0

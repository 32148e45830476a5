"""Intervals with real daemons: the traffic limit, a source that fills, explain, metrics."""

from __future__ import annotations

import contextlib
import io
import json
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable

import pytest

from replicator.cli.main import main
from replicator.embedded.daemon import EmbeddedSite
from replicator.embedded.lab import EmbeddedLab, LabPlan
from replicator.movers.interval import OWN_FULL, SOURCE_FULL
from replicator.status import DaemonStatus, GroupStatus, PullStatus
from tests.embedded.conftest import MakeLab
from tests.fakes.nbd_client import WRITE, NbdClient

DEADLINE_SECONDS = 60.0
PIECE = 256 << 10
LIMIT = 8e6 / 8
"""Bytes a second under ``traffic_limit: 8Mbit``."""

BATCH = 4 << 20
"""More than any batch that these writes make."""

EVERY = ["records", "traffic", "capacity", "load", "source"]


def eventually(condition: Callable[[], bool], what: str) -> None:
    """Wait on a condition with a deadline."""
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.05)


def write(lab: EmbeddedLab, megabytes: int) -> None:
    """Write so much at the primary, one piece after the other."""
    with NbdClient(lab.primary.nbd_socket, "db") as client:
        for at in range(megabytes * (1 << 20) // PIECE):
            client.send(WRITE, at * PIECE % (16 << 20), PIECE, bytes([at % 251]) * PIECE)
            _, error, _ = client.reply()
            assert error == 0


def daemon(status: GroupStatus) -> DaemonStatus:
    assert status.daemon is not None
    return status.daemon


def last_pull(site: EmbeddedSite) -> PullStatus:
    """Return the site's last pull; one of no source before the first."""
    nothing = PullStatus(source="", at_ns=0, records=0, bytes=0, interval_seconds=0.0, reason="")
    return site.status().own.pull or nothing


def test_interval_throttled_link_keeps_its_traffic_limit(make_lab: MakeLab) -> None:
    limited = {"inputs": ["records", "traffic"], "min": "50ms", "max": "5s"}
    options = {"b": {"interval": limited | {"traffic_limit": "8Mbit"}}}
    lab = make_lab(LabPlan(volumes={"db": "16MiB"}, journal="64MiB", site_options=options))
    lab.start()
    write(lab, 6)
    head = lab.primary.status().own.received
    assert head is not None
    seen = [daemon(lab.sites["b"].status())]

    def all_there() -> bool:
        status = lab.sites["b"].status()
        seen.append(daemon(status))
        return status.own.received is not None and status.own.received.position >= head.position

    eventually(all_there, "b has not received what a has")
    for at, later in enumerate(seen):
        for earlier in seen[:at]:
            span = later.uptime_seconds - earlier.uptime_seconds
            crossed = later.counters.link_bytes - earlier.counters.link_bytes
            assert crossed <= LIMIT * (span + 1.2) + BATCH
    total = seen[-1].counters.link_bytes
    assert total > head.position
    assert seen[-1].uptime_seconds >= (total - BATCH) / LIMIT - 1.2, "it took its time"
    lab.stop()


def test_interval_source_that_fills_is_pulled_at_once_and_relaxes(make_lab: MakeLab) -> None:
    """a's journal is needed for c, which is away: its page says so, and b's interval follows."""
    wide = {"inputs": ["source"], "min": "50ms", "max": "2s"}
    lab = make_lab(
        LabPlan(
            volumes={"db": "16MiB"},
            journal="16MiB",
            site_options={"b": {"interval": wide}, "c": {"interval": {"fixed": "50ms"}}},
        )
    )
    for name in ("a", "b"):
        lab.sites[name].start()
    b = lab.sites["b"]
    eventually(lambda: last_pull(b).interval_seconds == 2.0, "an idle source is relaxed")
    write(lab, 13)
    eventually(lambda: last_pull(b).winner == SOURCE_FULL, "b does not see a fill")
    pressed = last_pull(b)
    assert pressed.measured is not None
    assert pressed.measured.source > 0.7
    assert pressed.interval_seconds <= 0.05
    lab.sites["c"].start()
    eventually(lambda: last_pull(b).interval_seconds == 2.0, "b does not relax again")
    lab.wait_converged()
    lab.stop()


@pytest.mark.parametrize("near", [{"data": "none"}, {}], ids=["bunker", "sync"])
def test_interval_third_site_follows_the_near_sites_page(
    make_lab: MakeLab, near: dict[str, object]
) -> None:
    """c comes late: b's page says that b's journal is nearly full, and then that it is not."""
    wide = {"inputs": ["records", "source"], "min": "50ms", "max": "2s"}
    lab = make_lab(
        LabPlan(
            volumes={"db": "16MiB"},
            journal="16MiB",
            site_options={"b": {"link": "sync-or-stop", **near}, "c": {"interval": wide}},
        )
    )
    for name in ("b", "a"):
        lab.sites[name].start(wait=name != "a")
    eventually(lab.primary.nbd_socket.exists, "a does not serve")
    write(lab, 13)
    c = lab.sites["c"]
    c.start()
    flags = ["--topology", str(lab.topology_path), "--site", "c"]

    def decided() -> list[str]:
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            assert main(["pulls", "--json", *flags]) == 0
        pulls = json.loads(printed.getvalue())["pulls"]
        assert all(pull["source"] == "b" for pull in pulls)
        return [pull["winner"] for pull in pulls]

    eventually(lambda: SOURCE_FULL in decided(), "c does not see how full b is")
    eventually(lambda: last_pull(c).interval_seconds == 2.0, "c does not relax")
    assert main(["pulls", *flags]) == 0
    lab.wait_converged()
    lab.stop()


def test_interval_own_full_journal_waits_until_restore_makes_room(make_lab: MakeLab) -> None:
    """b restores nothing for a while: its ring fills, whatever its source would like."""
    policy = {"inputs": ["records", "capacity", "source"], "min": "50ms", "max": "30s"}
    options = {"b": {"interval": policy}}
    lab = make_lab(LabPlan(volumes={"db": "16MiB"}, journal="16MiB", site_options=options))
    lab.start()
    b = lab.sites["b"]
    eventually(lambda: last_pull(b).source == "a", "b does not pull")
    flags = ["--topology", str(lab.topology_path), "--site", "b"]
    assert main(["restore", "pause", *flags]) == 0
    write(lab, 20)
    eventually(lambda: last_pull(b).winner == OWN_FULL, "b's ring does not fill")
    full = last_pull(b)
    assert full.measured is not None
    assert full.measured.full
    assert full.interval_seconds == 30.0
    assert main(["restore", "resume", *flags]) == 0
    lab.wait_converged(25.0)
    lab.stop()


def test_interval_explained_and_measured_by_the_commands(make_lab: MakeLab) -> None:
    policy = {"inputs": EVERY, "min": "50ms", "max": "1s", "traffic_limit": "1Gbit"}
    options = {"c": {"rpo": "5s", "interval": policy}}
    lab = make_lab(LabPlan(volumes={"db": "16MiB"}, journal="64MiB", site_options=options))
    lab.start()
    write(lab, 2)
    lab.wait_converged()
    flags = ["--topology", str(lab.topology_path), "--site", "c"]
    explained = io.StringIO()
    with contextlib.redirect_stdout(explained):
        assert main(["pulls", "--explain", *flags]) == 0
    title, *rows = explained.getvalue().splitlines()
    assert "PROPOSED" in title and "BECAUSE" in title
    for name in (*EVERY, "rpo"):
        assert all(f"{name} " in row for row in rows)
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        assert main(["pulls", "--explain", "--json", *flags]) == 0
    pulls = json.loads(printed.getvalue())["pulls"]
    assert set(pulls[-1]["proposals"]) == {*EVERY, "rpo"}
    assert sum(pull["records"] for pull in pulls) > 0
    assert any(pull["measured"]["traffic"] > 0 for pull in pulls)
    _check_metrics(lab, flags)
    lab.stop()


def _check_metrics(lab: EmbeddedLab, flags: list[str]) -> None:
    """The exporter serves what the daemon says, and goes on when the daemon has gone."""
    program = "import sys; from replicator.cli.main import main; sys.exit(main())"
    exporter = subprocess.Popen(
        [sys.executable, "-c", program, "metrics", "--listen", "127.0.0.1:0", *flags],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert exporter.stdout is not None
        url = exporter.stdout.readline().removeprefix("serving ").strip()
        text = _scrape(url)
        assert 'replicator_daemon_up{group="orders"} 1.0' in text
        assert 'replicator_pull_proposal_seconds{group="orders",input="load"}' in text
        assert 'replicator_rpo_seconds{group="orders",site="c",view="own"} 5.0' in text
        lab.sites["c"].stop()
        assert 'replicator_daemon_up{group="orders"} 0.0' in _scrape(url)
    finally:
        exporter.send_signal(signal.SIGTERM)
        assert exporter.wait(20) == 0


def _scrape(url: str) -> str:
    with urllib.request.urlopen(url, timeout=20) as answer:
        content: bytes = answer.read()
    return content.decode()

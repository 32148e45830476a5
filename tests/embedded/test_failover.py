"""Changes of role with real processes on files: switchover, failover, a zombie's way back."""

from __future__ import annotations

import contextlib
import io
import json
import subprocess
import time
from collections.abc import Callable
from typing import Any

import msgspec

from replicator.cli.main import main
from replicator.embedded.clients import run
from replicator.embedded.lab import EmbeddedLab, LabPlan
from replicator.group.liveness import GAP_SECONDS
from replicator.journal.journal import Journal, Owner
from replicator.seams.boot import boot_id
from replicator.seams.filedevice import DirectDevice
from tests.embedded.conftest import MakeLab
from tests.tally import count, wanted

PLAN = LabPlan(volumes={"db": "16MiB", "wal": "4MiB"}, journal="24MiB", interval={"fixed": "50ms"})
DEADLINE = 60.0


class Group:
    """A lab whose primary moves about, and what its clients wrote."""

    def __init__(self, lab: EmbeddedLab) -> None:
        self.lab = lab
        self.primary = "a"
        self.writes = 0

    def ctl(self, site: str, *words: str, code: int = 0) -> Any:
        """Run replicatorctl at a site; its JSON, or its complaint if it fails."""
        out, complaint = io.StringIO(), io.StringIO()
        command = [*words, "--topology", str(self.lab.topology_path), "--site", site, "--json"]
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(complaint):
            found = main(command)
        assert found == code, (words, found, complaint.getvalue())
        if code or not out.getvalue().startswith("{"):
            return complaint.getvalue() or out.getvalue()
        return json.loads(out.getvalue())

    def write(self, how_many: int = 3) -> None:
        """Write some pieces at the primary through NBD, durable when answered."""
        uri = self.lab.sites[self.primary].nbd_uri("db")
        for _ in range(how_many):
            self.writes += 1
            offset = (self.writes * 73 % 200) * 65536
            run(
                [
                    "qemu-io",
                    "-f",
                    "raw",
                    "-c",
                    f"write -P {self.writes % 250 + 1} {offset} 64k",
                    uri,
                ]
            )

    def wait(self, what: str, ready: Callable[[], bool]) -> None:
        deadline = time.monotonic() + DEADLINE
        while not ready():
            assert time.monotonic() < deadline, f"{what} took longer than {DEADLINE} s"
            time.sleep(0.05)

    def state(self, site: str) -> str:
        return self.lab.sites[site].status().own.state

    def wait_state(self, site: str, state: str) -> None:
        self.wait(f"{site} {state}", lambda: self.state(site) == state)

    def wait_same(self) -> None:
        """Wait until every site has restored the primary's log, and compare the files."""

        def points() -> set[tuple[int, str]]:
            own = [site.status().own for site in self.lab.sites.values()]
            assert all(each.received and each.restored for each in own)
            ends = [p for each in own for p in (each.received, each.restored)]
            return {(p.position, p.digest) for p in ends if p is not None}

        self.wait("convergence", lambda: len(points()) == 1)
        for volume, digests in self.lab.digests().items():
            assert len(set(digests.values())) == 1, (volume, digests)

    def switch(self, to: str) -> None:
        self.ctl(self.primary, "demote", "--to", to)
        done = self.ctl(to, "promote")
        assert done["nothing_lost"] and not done["hosts_held"] and not done["forced"], done
        self.primary = to
        self.wait_state(to, "serving")


def test_switchover_to_each_site_and_back_loses_nothing(make_lab: MakeLab) -> None:
    group = Group(make_lab(PLAN))
    group.lab.start()
    rounds = wanted("TOWLINE_SWITCHOVERS", 2)
    for _ in range(rounds):
        for to in ("c", "b", "a"):
            group.write()
            group.switch(to)
            group.write()
            group.wait_same()
            count("switchovers")
    history = {site: group.ctl(site, "history")["epochs"] for site in "abc"}
    assert history["a"] == history["b"] == history["c"]
    assert [each["site"] for each in history["a"]] == ["a", *["c", "b", "a"] * rounds]
    group.lab.stop()


def boots_anew(lab: EmbeddedLab, site: str) -> None:
    """Let a site's page say that it was active on another kernel boot, as after a power cut."""
    peers = tuple(name for name in lab.sites if name != site)
    device = DirectDevice(lab.sites[site].journal_path, writable=True, lock=True)
    try:
        journal = Journal.open(device, Owner("orders", site, boot_id(), peers))
        journal.restate(lambda body: msgspec.structs.replace(body, active_on=b"x" * 16))
    finally:
        device.close()


def test_primary_that_boots_goes_on_without_a_site_on_the_operators_word_alone(
    make_lab: MakeLab,
) -> None:
    group = Group(make_lab(PLAN))
    lab = group.lab
    lab.start()
    group.write()
    group.wait_same()
    lab.sites["a"].stop()
    lab.sites["b"].stop()
    journal = lab.sites["b"].journal_path
    away = journal.rename(journal.with_suffix(".away"))
    boots_anew(lab, "a")
    lab.sites["a"].start()
    group.wait_state("a", "booting")
    group.wait("the reason", lambda: "site b cannot be read" in lab.sites["a"].status().own.reason)
    assert "--force --without SITE" in group.ctl("a", "promote", code=14)
    assert "cannot be read" in group.ctl("a", "promote", "--force", "--without", "c", code=14)
    done = group.ctl("a", "promote", "--force", "--without", "b")
    assert done["forced"] and done["epoch"] == 2 and not done["hosts_held"], done
    group.wait_state("a", "serving")
    group.write()
    away.rename(journal)
    lab.sites["b"].start()
    group.wait_same()
    count("F28")
    lab.stop()


def test_failover_of_a_killed_primary_holds_hosts_and_takes_the_old_one_back(
    make_lab: MakeLab,
) -> None:
    group = Group(make_lab(PLAN))
    lab = group.lab
    lab.start()
    group.write()
    said = group.ctl("c", "promote", code=14)
    assert "site a serves hosts" in said
    lab.sites["a"].kill()
    said = group.ctl("c", "promote", code=14)
    assert "site a serves hosts, or has ended without saying" in said
    done = group.ctl("c", "promote", "--force", "--without", "a")
    assert done["forced"] and done["hosts_held"], done
    group.wait_state("c", "held")
    group.ctl("c", "hosts", "confirm")
    group.wait_state("c", "serving")
    group.primary = "c"
    group.write()
    lab.sites["a"].start()
    group.wait_state("a", "following")
    group.wait_same()
    assert group.ctl("a", "history")["epochs"][-1]["forced"]
    group.switch("a")
    group.write()
    group.wait_same()
    lab.stop()
    count("failovers")


def test_zombie_primary_stopped_during_a_failover_answers_nobody_afterwards(
    make_lab: MakeLab,
) -> None:
    """F20: the fence is an operator's word here; a client waits at the zombie when it goes on."""
    group = Group(make_lab(PLAN))
    lab = group.lab
    lab.start()
    group.write()
    zombie = lab.sites["a"]
    uri = zombie.nbd_uri("db")
    before = zombie.status().own.received
    zombie.pause()
    client = subprocess.Popen(
        ["qemu-io", "-f", "raw", "-c", "write -P 99 0 64k", uri],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    group.ctl("c", "promote", "--force", "--without", "a")
    group.ctl("c", "hosts", "confirm")
    group.wait_state("c", "serving")
    group.primary = "c"
    group.write()
    time.sleep(GAP_SECONDS + 1)  # the gap itself: how long the process did not run
    zombie.resume()
    said, _ = client.communicate(timeout=DEADLINE)
    assert client.returncode != 0, said
    group.wait_state("a", "following")
    group.wait_same()
    fork = group.ctl("a", "history")["epochs"][-1]["fork_position"]
    assert before is not None and fork >= before.position, "nothing of the old epoch came after"
    lab.stop()
    count("F20")

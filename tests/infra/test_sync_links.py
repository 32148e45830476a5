"""A sync link on real LIO: the primary writes its near site's journal before it answers a host."""

from __future__ import annotations

import os
import random
import secrets
from functools import partial

import pytest

from replicator.codec import naming
from tests import tally
from tests.infra.lab import PYTHON, Lab, Stamps, until

pytestmark = pytest.mark.topology("bunker", "sync")

KILLS = int(os.environ.get("TOWLINE_VM_KILLS", "10"))
BLOCK = 4096


def _link(lab: Lab) -> str:
    """Return the primary's status: it has a line about the link."""
    return str(lab["a"].run(f"replicatorctl status --group {lab.group.name}").stdout)


def _in_sync(lab: Lab) -> bool:
    return "in sync for" in _link(lab)


def test_sync_link_writes_reach_the_near_ring_before_the_answer(lab: Lab, stamps: Stamps) -> None:
    """b's daemon is stopped: what a was answered lies in b's ring all the same, byte for byte."""
    until(partial(_in_sync, lab), 120, "the link is in sync")
    lab.converge()
    start = lab.head("a")
    lab["b"].ok(f"systemctl stop {lab.unit}")
    try:
        stamps.write(50)
        length = lab.head("a") - start
        assert length > 50 * BLOCK
        pieces = []
        for site in ("a", "b"):
            offset, path = lab.device_offset(site, start), lab.journal(site)
            pieces.append(lab[site].script("digest", offset, length, path, python=PYTHON)[path])
        assert pieces[0] == pieces[1]
    finally:
        lab["b"].ok(f"systemctl start {lab.unit}", 240)
    lab.assert_same_everywhere(["scratch"])
    assert stamps.held_by("c") == 50


def test_sync_link_cut_holds_hosts_or_degrades_as_its_name_says(
    lab: Lab, stamps: Stamps, note: list[str]
) -> None:
    """F12, F47: the cable is cut under load; nobody sees an error, and the link heals itself."""
    until(partial(_in_sync, lab), 120, "the link is in sync")
    errors = lab.app.kernel_errors()
    with stamps.trickle() as answered:
        with lab.cut("a-b"):
            if "sync-or-stop" in _link(lab):
                until(lambda: "held" in _link(lab), 180, "status says that hosts are held")
                before = answered()
                until(lambda: "held" in _link(lab), 60, "and again")
                assert answered() == before
            else:
                until(lambda: "degraded" in _link(lab), 180, "status says degraded")
                before = answered()
                until(lambda: answered() > before + 20, 120, "hosts go on")
        healed = answered()
        until(partial(_in_sync, lab), 240, "the link is in sync again")
        until(lambda: answered() > healed, 240, "hosts go on after the cut")
    note.append(f"{stamps.answered} writes answered")
    assert lab.app.kernel_errors() == errors
    lab.assert_same_everywhere(["scratch"])
    assert stamps.held_by("c") >= stamps.answered
    tally.count("F12")
    tally.count("F47")


def test_sync_link_garbage_that_a_writes_into_the_near_ring_is_not_applied(
    lab: Lab, stamps: Stamps
) -> None:
    """F36: behind b's head, by a's own session, while a's replicator is down."""
    stamps.write(20)
    lab.converge()
    leg = naming.leg_path(lab.topology, lab.group.name, "b")
    with lab.stays_dead("a"):
        lab["a"].ok(f"systemctl kill --signal=KILL {lab.unit}")
        until(lambda: not lab["a"].host.service(lab.unit).is_running, 60, "a's replicator is dead")
        block = lab.device_offset("b", lab.head("b")) // BLOCK
        lab["a"].ok(
            f"dd if=/dev/urandom of={leg} bs={BLOCK} seek={block} count=64 oflag=direct"
            " conv=notrunc,fsync status=none"
        )
        lab.restart("b")
        until(lambda: lab.head("b") >= 0, 60, "b answers")
        assert stamps.held_by("c") == 20
    stamps.write(20)
    lab.assert_same_everywhere(["scratch"])
    assert stamps.held_by("c") == 40
    tally.count("F36")


def test_sync_link_kill_a_then_seal_gives_c_every_answered_write(lab: Lab, note: list[str]) -> None:
    """Promise 2, F23: at random moments; c has all that was answered after fence and seal at b."""
    chooser = random.Random(secrets.token_hex(8))
    total = 0
    for number in range(KILLS):
        until(partial(_in_sync, lab), 240, "the link is in sync")
        stamps = Stamps(lab, secrets.token_hex(4), "scratch")
        wanted = chooser.randrange(20, 200)
        with lab.stays_dead("a", begins_again=False):
            with stamps.trickle() as answered:
                until(lambda: answered() >= wanted, 240, f"{wanted} writes are answered")  # noqa: B023
                lab["a"].ok(f"systemctl kill --signal=KILL {lab.unit}")
            _seal(lab, "b")
            end = int(lab.page("b")["head"].split(":")[0])
            until(partial(_has_restored, lab, "c", end), 240, "c has restored to the sealed pair")
            held = stamps.held_by("c")
            assert held >= stamps.answered, (
                f"kill {number}: {stamps.answered} answered, {held} at c"
            )
            total += stamps.answered
            tally.count("F23")
        lab.begin_anew()
    note.append(f"{KILLS} kills, {total} answered writes, 0 missing at c")


def _seal(lab: Lab, site: str) -> None:
    lab[site].ok(f"systemctl stop {lab.unit}")
    lab[site].ok(f"replicatorctl seal --group {lab.group.name} --reason test", 180)
    lab[site].ok(f"systemctl start {lab.unit}", 240)


def _has_restored(lab: Lab, site: str, position: int) -> bool:
    own = lab.seen_from(site).get(site) or {}
    return bool((own.get("restored") or {}).get("position") == position)

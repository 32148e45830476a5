"""Rot in a journal, and a sector that cannot be read."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests import tally
from tests.infra.lab import Lab, Stamps, until

pytestmark = pytest.mark.side_effect

BLOCK = 4096
PAYLOAD = BLOCK + 100
"""A byte in the first record of a batch: the header is one block here."""
MEDIUM_ERROR = "Medium Error"


def test_disturbed_rot_in_the_source_is_named_exactly_and_not_applied(
    lab: Lab, stamps: Stamps
) -> None:
    """F6: c takes nothing of b's rotten batch; b's check names it; put right, c goes on."""
    lab.converge()
    lab["c"].ok(f"systemctl stop {lab.unit}")
    position = lab.head("b")
    stamps.write(40)
    head = lab.head("a")
    until(lambda: lab.head("b") == head, 60, "b has the writes")
    named = f"device offset {lab.device_offset('b', position)}"
    try:
        with lab.rotten("b", position + PAYLOAD):
            checked = lab["b"].run("replicatorctl journal check", 300)
            assert checked.rc == 9 and named in checked.stderr, (checked.rc, checked.stderr)
            lab["c"].run(f"systemctl start {lab.unit}", 240)
            until(lambda: "rot" in lab.reason("c"), 60, "c says that b's journal is rotten")
            assert named in lab.reason("c"), lab.reason("c")
            assert lab.head("c") <= position and stamps.held_by("c") == 0
    finally:
        lab.restart("c")
    lab["b"].ok("replicatorctl journal check", 300)
    lab.assert_same_everywhere(["scratch"])
    assert stamps.held_by("c") == 40
    tally.count("F6")


def test_disturbed_rot_in_the_unapplied_tail_keeps_the_site_down(lab: Lab, stamps: Stamps) -> None:
    """F5, F7: b dies with a tail that is not restored; one bit of it rots; b does not start."""
    lab.converge()
    restored = lab.head("b")
    with lab.stays_dead("b"):
        with _stopped_disk(lab, "b"):
            stamps.write(20)
            head = lab.head("a")
            until(lambda: _position(lab, "head") == head, 120, "b's page states the writes")
            lab["b"].ok(f"systemctl kill --signal=KILL {lab.unit}")
        until(lambda: not lab["b"].host.service(lab.unit).is_running, 60, "b's replicator is dead")
        assert _position(lab, "restored") == restored
        with lab.rotten("b", restored + PAYLOAD):
            lab["b"].run(f"systemctl start {lab.unit}", 240)
            show = f"systemctl show --property=ExecMainStatus --value {lab.unit}"
            until(lambda: lab["b"].ok(show).strip() == "9", 120, "b's replicator ends with 9")
            log = lab["b"].ok(f"journalctl --unit={lab.unit} -n 20 -o cat")
            assert f"device offset {lab.device_offset('b', restored)}" in log, log
            assert _position(lab, "restored") == restored
    lab.assert_same_everywhere(["scratch"])
    assert stamps.held_by("b") == stamps.answered
    tally.count("F5")
    tally.count("F7")


def _position(lab: Lab, point: str) -> int:
    return int(lab.page("b")[point].partition(":")[0].partition(",")[0])


@contextmanager
def _stopped_disk(lab: Lab, site: str) -> Iterator[None]:
    """Let every request to a site's scratch volume wait: no checkpoint can be made.

    A process that is killed meanwhile ends when the disk goes on, before it can say anything more.
    """
    volume = lab.volume(site, "scratch")
    lab[site].ok(f"dmsetup suspend {volume}")
    try:
        yield
    finally:
        lab[site].ok(f"dmsetup resume {volume}")


@contextmanager
def _bad_sectors(lab: Lab, first: int, count: int) -> Iterator[None]:
    """Make sectors of a's scratch volume unreadable, under everything that uses it."""
    node, volume = lab["a"], lab.volume("a", "scratch")
    name = node.ok(f"dmsetup info -c --noheadings -o name {volume}").strip()
    whole = node.ok(f"dmsetup table {name}").strip()
    start, size, kind, device, offset = whole.split()
    assert (start, kind) == ("0", "linear"), f"not one linear piece: {whole}"
    after = first + count
    pieces = [
        f"0 {first} linear {device} {offset}",
        f"{first} {count} error",
        f"{after} {int(size) - after} linear {device} {int(offset) + after}",
    ]
    swap = f"dmsetup load {name} && dmsetup suspend {name}; dmsetup resume {name}"
    node.ok("printf '%s\\n' " + " ".join(f'"{piece}"' for piece in pieces) + f" | {swap}")
    node.ok(f"sync {volume}; echo 1 >/proc/sys/vm/drop_caches")
    try:
        yield
    finally:
        node.ok(f"echo '{whole}' | {swap}")


def test_disturbed_sector_that_cannot_be_read_is_a_medium_error_at_the_host(lab: Lab) -> None:
    """F13: an error, never zeros; and the bytes are there again when the disk is."""
    lab.converge()
    generic = lab.sg_device(lab.app, lab.host_disk("scratch"))
    reading = f"sg_raw --request={BLOCK} {generic} 28 00 00 00 08 00 00 00 08 00"
    before = lab.app.run(reading)
    assert before.rc == 0, before
    with _bad_sectors(lab, first=2048, count=8):
        failed = lab.app.run(reading)
        text = failed.stdout + failed.stderr
        assert failed.rc != 0 and MEDIUM_ERROR in text, text
        elsewhere = reading.replace("00 00 08 00 00 00 08", "00 00 10 00 00 00 08")
        assert lab.app.run(elsewhere).rc == 0
    assert lab.app.run(reading).stdout == before.stdout
    lab.assert_same_everywhere(["scratch"])
    tally.count("F13")

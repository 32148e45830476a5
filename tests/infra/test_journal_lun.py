"""A journal LUN is read-only, whatever a reader sends (F37)."""

from __future__ import annotations

import pytest

from replicator.codec import naming
from tests import tally
from tests.infra.lab import PYTHON, Lab, Node

BLOCK = 4096
PIECE = 8 << 20
"""So much of the ring opposite to its head, which the owner does not write meanwhile."""

DATA_PROTECT = "Data Protect"
REFUSALS = (DATA_PROTECT, "Illegal Request", "Reservation conflict", "Aborted Command")


@pytest.fixture
def reader(lab: Lab) -> Node:
    return lab["b"]


@pytest.fixture
def disk(lab: Lab) -> str:
    """a's journal as b sees it."""
    return naming.peer_journal_path(lab.topology, lab.group.name, "a")


@pytest.fixture
def far_side(lab: Lab) -> int:
    """The device offset in the middle of a piece that is not written now."""
    page = lab.page("a")
    ring, first = int(page["ring_size"]), int(page["ring_offset"])
    opposite = (lab.head("a") + ring // 2) % (ring - 2 * PIECE)
    return first + opposite // BLOCK * BLOCK + PIECE


def _piece(lab: Lab, middle: int) -> str:
    """Return the digest, at a, of the journal around an offset."""
    path = lab.journal("a")
    start = middle - PIECE // 2
    return str(lab["a"].script("digest", start, PIECE, path, python=PYTHON)[path])


def test_journal_lun_plain_write_is_refused_by_the_initiator(
    lab: Lab, reader: Node, disk: str
) -> None:
    assert reader.ok(f"blockdev --getro {disk}").strip() == "1"
    refused = reader.run(f"python3 -c 'import os, sys; os.open(sys.argv[1], os.O_RDWR)' {disk}")
    assert refused.rc != 0 and ("Read-only" in refused.stderr or "permitted" in refused.stderr)
    tally.count("F37")


def test_journal_lun_scsi_commands_that_write_are_refused_by_the_target(
    lab: Lab, reader: Node, disk: str, far_side: int
) -> None:
    lab.converge()
    generic = lab.sg_device(reader, disk)
    before = _piece(lab, far_side)
    lba = (far_side // 512).to_bytes(4, "big").hex(" ")
    wide = (far_side // 512).to_bytes(8, "big").hex(" ")
    commands = {
        "WRITE(10)": (f"2a 00 {lba} 00 00 08 00", BLOCK),
        "WRITE(16)": (f"8a 00 {wide} 00 00 00 08 00 00", BLOCK),
        "WRITE AND VERIFY(10)": (f"2e 00 {lba} 00 00 08 00", BLOCK),
        "WRITE SAME(16)": (f"93 00 {wide} 00 00 00 08 00 00", 512),
        "WRITE SAME(16) UNMAP": (f"93 08 {wide} 00 00 00 08 00 00", 512),
        "COMPARE AND WRITE": (f"89 00 {wide} 00 00 00 01 00 00", 1024),
        "UNMAP": ("42 00 00 00 00 00 00 00 18 00", 24),
        "FORMAT UNIT": ("04 00 00 00 00 00", 0),
        "PERSISTENT RESERVE OUT": ("5f 00 00 00 00 00 00 00 18 00", 24),
    }
    wrong = {}
    for name, (cdb, length) in commands.items():
        send = f"head -c {length} /dev/zero | sg_raw -s {length}" if length else "sg_raw"
        answer = reader.run(f"{send} {generic} {cdb}")
        text = answer.stdout + answer.stderr
        if answer.rc == 0 or not any(refusal in text for refusal in REFUSALS):
            wrong[name] = (answer.rc, text)
        if name == "WRITE(10)":
            assert DATA_PROTECT in text, text
    assert not wrong, wrong
    assert _piece(lab, far_side) == before
    tally.count("F37")


def test_journal_lun_extended_copy_is_refused(
    lab: Lab, reader: Node, disk: str, far_side: int
) -> None:
    """Design section 9: a session could copy into a read-only LUN, were it not switched off."""
    generic = lab.sg_device(reader, disk)
    before = _piece(lab, far_side)
    copying = f"sg_xcopy if={generic} of={generic} bs=512 count=8 skip=0 seek={far_side // 512}"
    answer = reader.run(f"{copying} --on_src; {copying} --on_dst")
    assert answer.rc != 0, answer
    assert _piece(lab, far_side) == before
    tally.count("F37")


def test_journal_lun_after_all_that_the_journal_is_whole(lab: Lab) -> None:
    lab["a"].ok("replicatorctl journal check", 240)
    lab.converge()

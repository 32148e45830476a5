"""A reader left behind by a full journal comes back (F14, F29, F33), with real daemons."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from replicator.codec.batch import Batch
from replicator.codec.records import RecordKind
from replicator.embedded.lab import EmbeddedLab, LabPlan
from replicator.journal.survey import Survey
from replicator.seams.filedevice import DirectDevice
from replicator.status import GroupStatus, SiteStatus
from tests.embedded.conftest import MakeLab
from tests.embedded.stamped import StampedWriter
from tests.tally import count

SIZES = {"one": 8 << 20, "two": 8 << 20}
PLAN = LabPlan(
    volumes={"one": "8MiB", "two": "8MiB"},
    journal="16MiB",
    interval={"fixed": "50ms"},
    when_full="detach",
)
DEADLINE = 120.0


def eventually(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + DEADLINE
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.05)


def seen(lab: EmbeddedLab, at: str, site: str) -> SiteStatus:
    status: GroupStatus = lab.sites[at].status()
    return next(each for each in status.sites if each.site == site)


def images(lab: EmbeddedLab, site: str) -> dict[str, bytes]:
    return {name: lab.sites[site].volume_path(name).read_bytes() for name in SIZES}


def complete(lab: EmbeddedLab, *sites: str) -> bool:
    """Whether every site is consistent and has restored what the primary holds."""
    head = seen(lab, "a", "a").received
    for site in sites:
        own = seen(lab, site, site)
        if own.gap is not None or own.restored is None or own.restored != head:
            return False
    return True


def sent_bytes(journal: Path) -> int:
    """Payload of the copies that the ring of ``journal`` holds."""
    device = DirectDevice(journal, writable=False)
    try:
        survey = Survey(device)
        first = survey.first()
        assert first is not None
        return sum(
            record.length
            for batch in survey.batches(first, survey.body.head.position)
            if isinstance(batch, Batch) and batch.first_kind in (RecordKind.COPY, RecordKind.ZERO)
            for record in batch.records()
            if record.kind == RecordKind.COPY
        )
    finally:
        device.close()


@pytest.mark.parametrize("away", ["c", "b"])
def test_reader_left_behind_by_a_full_journal_is_resynced_while_hosts_write(
    make_lab: MakeLab, away: str
) -> None:
    lab = make_lab(PLAN)
    lab.start()
    writer = StampedWriter(lab.primary.nbd_socket, SIZES, seed=14)
    writer.write_until_cut(200)
    eventually(lambda: complete(lab, "b", "c"), "everybody follows")
    lab.sites[away].kill()
    answered = writer.write_until_cut(4000)
    assert answered >= 4000, "hosts go on: nobody waits for a reader that is away"
    left = seen(lab, "b" if away == "c" else "a", away if away == "c" else "b")
    source = seen(lab, "b" if away == "c" else "a", "b" if away == "c" else "a")
    assert left.site in source.left_behind
    assert source.left_behind[left.site] > 0
    lab.sites[away].start()
    writer.write_until_cut(500)
    eventually(lambda: complete(lab, "b", "c"), "the one that was away is complete again")
    writer.write_until_cut(200)
    eventually(lambda: complete(lab, "b", "c"), "and goes on")
    for site in ("b", "c"):
        assert images(lab, site) == images(lab, "a")
    assert seen(lab, "a", "a").left_behind == {}
    count("F14")


def test_resync_killed_at_every_site_again_and_again_goes_on(make_lab: MakeLab) -> None:
    lab = make_lab(PLAN)
    lab.start()
    writer = StampedWriter(lab.primary.nbd_socket, SIZES, seed=29)
    writer.write_until_cut(200)
    eventually(lambda: complete(lab, "b", "c"), "everybody follows")
    lab.sites["c"].kill()
    writer.write_until_cut(4000)
    lab.sites["c"].start()
    for victim in ("c", "a", "b", "c", "a"):
        time.sleep(0.3)
        lab.sites[victim].kill()
        lab.sites[victim].start()
    eventually(lambda: complete(lab, "b", "c"), "the resync ends all the same")
    for site in ("b", "c"):
        assert images(lab, site) == images(lab, "a")
    count("F29")


def test_disk_replaced_by_a_blank_one_is_filled_by_an_initial_copy(make_lab: MakeLab) -> None:
    lab = make_lab(PLAN)
    lab.start()
    writer = StampedWriter(lab.primary.nbd_socket, SIZES, seed=33)
    writer.write_until_cut(3000)
    eventually(lambda: complete(lab, "b", "c"), "everybody follows")
    lab.sites["c"].stop()
    for name, size in SIZES.items():
        os.truncate(lab.sites["c"].volume_path(name), 0)
        os.truncate(lab.sites["c"].volume_path(name), size)
    lab.remake_journal("c")
    lab.sites["c"].start()
    eventually(
        lambda: "replicatorctl peer accept c" in seen(lab, "b", "c").reason,
        "b refuses a journal that it does not know, and says what to do",
    )
    for site in ("a", "b"):
        lab.sites[site].ask("peer-accept", {"site": "c"}, dict)
    writer.write_until_cut(200)
    eventually(lambda: complete(lab, "b", "c"), "c is complete again")
    assert images(lab, "c") == images(lab, "a")
    count("F33")

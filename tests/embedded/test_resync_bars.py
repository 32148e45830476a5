"""What a resync may cost, in bytes that cross the link, with real daemons on files."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable

import pytest

from replicator.embedded.lab import EmbeddedLab, LabPlan
from replicator.status import SiteStatus
from tests import tally
from tests.embedded.conftest import MakeLab
from tests.fakes.nbd_client import WRITE, NbdClient

DEADLINE_SECONDS = 300.0
BLOCK = 4096
MIB = 1 << 20
DETACH = LabPlan(
    volumes={"db": "48MiB"}, journal="16MiB", interval={"fixed": "100ms"}, when_full="detach"
)


def eventually(condition: Callable[[], bool], what: str) -> None:
    """Wait on a condition with a deadline."""
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.05)


def own(lab: EmbeddedLab, site: str) -> SiteStatus:
    return lab.sites[site].status().own


def head(lab: EmbeddedLab) -> int:
    received = own(lab, "a").received
    assert received is not None
    return received.position


def write(lab: EmbeddedLab, places: list[int], length: int, seed: int) -> None:
    """Write ``length`` random bytes at each place of ``db``; each write is answered."""
    chance = random.Random(seed)
    with NbdClient(lab.primary.nbd_socket, "db") as client:
        for at in places:
            client.send(WRITE, at, length, chance.randbytes(length))
            _, error, _ = client.reply()
            assert error == 0


def complete(lab: EmbeddedLab) -> bool:
    return all(own(lab, site).gap is None for site in lab.sites)


def idle(lab: EmbeddedLab) -> bool:
    """Whether every site is consistent and no resync is under way."""
    return complete(lab) and lab.primary.status().resync is None


def same_everywhere(lab: EmbeddedLab) -> None:
    lab.wait_converged(DEADLINE_SECONDS)
    lab.stop()
    for volume, digests in lab.digests().items():
        assert len(set(digests.values())) == 1, (volume, digests)


@pytest.mark.parametrize("length", [BLOCK, 64 << 10])
def test_resync_after_a_detach_moves_little_more_than_what_changed(
    make_lab: MakeLab, length: int
) -> None:
    """10 MiB of extents change, again and again, while c is away; 1.1 x that and 1 MiB is paid."""
    lab = make_lab(DETACH)
    lab.start()
    everywhere = list(range(0, 48 * MIB, 256 << 10))
    write(lab, everywhere, 256 << 10, seed=1)
    lab.wait_converged(DEADLINE_SECONDS)
    lab.sites["c"].kill()
    places = random.Random(length).sample(range(48 * MIB // length), 10 * MIB // length)
    for round_ in range(5):
        write(lab, [place * length for place in places], length, seed=2 + round_)
    eventually(lambda: "c" in own(lab, "b").left_behind, "b leaves c behind")
    before = head(lab)
    lab.sites["c"].start()
    eventually(lambda: own(lab, "c").gap is not None, "c takes a gap")
    eventually(lambda: idle(lab), "the resync ends")
    grown, changed = head(lab) - before, 10 * MIB
    tally.count(f"bytes of log for a resync of 10 MiB in {length} bytes", grown)
    assert grown <= 1.1 * changed + MIB
    still = head(lab)
    same_everywhere(lab)
    assert head_of_files(lab) == still, "a pair that is the same moves nothing"


def head_of_files(lab: EmbeddedLab) -> int:
    """Return where a's log ended when it was stopped."""
    lab.start()
    try:
        return head(lab)
    finally:
        lab.stop()


def test_resync_of_extents_that_are_equal_already_moves_digests_only(make_lab: MakeLab) -> None:
    """What was changed while c was away has its old content again when c comes back."""
    lab = make_lab(DETACH)
    lab.start()
    places = list(range(0, 16 * MIB, 256 << 10))
    write(lab, places, 256 << 10, seed=1)
    lab.wait_converged(DEADLINE_SECONDS)
    lab.sites["c"].kill()
    for seed in (2, 3, 1):
        write(lab, places, 256 << 10, seed=seed)
    eventually(lambda: "c" in own(lab, "b").left_behind, "b leaves c behind")
    before = head(lab)
    lab.sites["c"].start()
    eventually(lambda: own(lab, "c").gap is not None, "c takes a gap")
    eventually(lambda: idle(lab), "the resync ends")
    assert head(lab) - before <= MIB
    same_everywhere(lab)


@pytest.mark.slow
def test_initial_copy_of_a_large_volume_moves_its_data_alone(make_lab: MakeLab) -> None:
    """A volume of 10 GiB with 100 MiB of data, a new site whose source has reclaimed the start."""
    plan = LabPlan(volumes={"db": "64MiB"}, journal="16MiB", when_full="detach", sites=("a", "b"))
    lab = make_lab(plan)
    for site in lab.sites.values():
        os.truncate(site.volume_path("db"), 10 << 30)
    text = lab.topology_path.read_text().replace("64MiB", "10GiB")
    lab.topology_path.write_text(text)
    lab.remake_journal("a")
    lab.remake_journal("b")
    lab.sites["a"].start()
    chance = random.Random(7)
    places = [place * (1 << 20) for place in chance.sample(range(10 << 10), 100)]
    write(lab, places, 1 << 20, seed=7)
    eventually(lambda: "b" in own(lab, "a").left_behind, "a waits for b no more")
    before = head(lab)
    lab.sites["b"].start()
    eventually(lambda: own(lab, "b").gap is not None, "b takes a gap")
    eventually(lambda: idle(lab), "the copy ends")
    grown = head(lab) - before
    assert grown <= 111 * MIB
    tally.count("bytes of log for the initial copy of 10 GiB with 100 MiB of data", grown)
    same_everywhere(lab)

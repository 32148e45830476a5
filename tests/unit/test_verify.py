"""Verification: the pass and its rate, what sites find, how long they know it, and the repair."""

from __future__ import annotations

import random

import pytest
from msgspec.structs import replace

from replicator.codec.catalog_records import VolumeChange, encode_event
from replicator.codec.page import (
    Differing,
    PageDamaged,
    VerifyNote,
    VerifyRun,
    decode_page,
    encode_page,
)
from replicator.codec.records import RecordKind
from replicator.group.verification import ask_repair
from replicator.journal.journal import INCONSISTENT, Journal, Owner
from replicator.journal.reader import read_batches
from replicator.model import ControlRecord
from replicator.movers.judge import MOST_LISTED
from replicator.movers.verify import HOLD_FROM_FILL, MOST_UNDER_WAY, Verify
from tests.fakes.group_on_sim import BOOT, VOLUMES, Primary
from tests.fakes.verified_pair import CHUNK, FAST, VerifiedPair
from tests.sim.devices import Fault
from tests.tally import count

ALL_BYTES = sum(entry.size_bytes for entry in VOLUMES)
FLIPS = 1000


def _write_everywhere(pair: VerifiedPair, rng: random.Random) -> None:
    for entry in VOLUMES:
        for at in range(0, entry.size_bytes, 16 << 10):
            pair.a.write(entry.id, at, rng.randbytes(16 << 10))
            pair.commit_all()
    pair.follow()


def _verify_of(primary: Primary, chunk: int = CHUNK) -> tuple[Verify, list[int]]:
    """Return a mover and the list of offsets that it sends; nothing is committed."""
    sent: list[int] = []
    verify = Verify(
        primary.journal,
        primary.volumes,
        lambda records: sent.extend(each.offset for each in records),
        chunk,
    )
    return verify, sent


def test_verify_finds_each_of_a_thousand_flipped_bits_and_repairs_them() -> None:
    rng = random.Random(20)
    pair = VerifiedPair()
    _write_everywhere(pair, rng)
    chunks = [(v.id, at) for v in VOLUMES for at in range(0, v.size_bytes, CHUNK)]
    found = 0
    while found < FLIPS:
        hit = rng.sample(chunks, min(20, FLIPS - found))
        for volume_id, at in hit:
            pair.flip(volume_id, at * 8 + rng.randrange(CHUNK * 8))
        before = pair.restore.judge.mismatches
        pair.run_pass()
        assert pair.restore.judge.mismatches - before == len(hit)
        for volume_id, at in hit:
            piece = next(
                each
                for each in pair.restore.judge.differs
                if each.volume_id == volume_id and each.offset <= at < each.end
            )
            assert piece.offset % CHUNK == piece.length % CHUNK == 0
        found += len(hit)
        ask_repair(pair.b.journal)
        pair.run_repair()
        assert pair.restore.judge.differs == []
        assert pair.b.journal.body.verified == VerifyNote(found=found)
    for entry in VOLUMES:
        assert pair.b.machine[entry.name].content == pair.a.machine[entry.name].content
    count("F8", found)


def test_verify_pass_covers_every_byte_once_and_states_where_it_ended() -> None:
    pair = VerifiedPair()
    _write_everywhere(pair, random.Random(1))
    began = pair.a.journal.head.position
    pair.run_pass()
    assert pair.restore.judge.verified_bytes == ALL_BYTES
    assert pair.restore.judge.differs == []
    run = pair.a.journal.body.verify_run
    assert run is not None
    assert (run.state, run.began, run.ended) == ("finished", began, pair.a.journal.head.position)
    assert not pair.verify.step(pair.now + 100)


def test_verify_keeps_to_its_rate_and_to_what_is_under_way() -> None:
    verify, sent = _verify_of(Primary())
    verify.start(float(CHUNK), repeat=False)
    verify.step(0.0)
    assert sent == []
    for tenth in range(1, 31):
        verify.step(tenth / 10)
    assert sent == [0, CHUNK, 2 * CHUNK]
    for second in range(4, 100):
        verify.step(float(second))
    assert len(sent) == MOST_UNDER_WAY, "none of them became durable"


def test_verify_after_a_restart_goes_on_where_it_was_and_after_a_stop_does_not() -> None:
    pair = VerifiedPair()
    pair.verify.start(FAST, repeat=False)
    pair.verify.step(0.0)
    pair.verify.step(20.0)
    pair.commit_all()
    saved = pair.a.journal.body.verify_run
    assert saved is not None
    assert saved.offset == MOST_UNDER_WAY * CHUNK
    pair.restart_a()
    assert pair.verify.run == saved
    pair.verify.stop()
    pair.restart_a()
    assert not pair.verify.step(40.0)
    assert not pair.verify.step(60.0)
    assert pair.a.commit.waiting == 0


def test_verify_again_and_again_begins_anew_after_each_pass() -> None:
    pair = VerifiedPair()
    pair.verify.start(FAST, repeat=True)
    while (run := pair.verify.run) is not None and run.number < 3:
        pair.now += 1.0
        pair.verify.step(pair.now)
        pair.commit_all()
        pair.follow()
    assert pair.restore.judge.verified_bytes >= 2 * ALL_BYTES
    assert run is not None
    assert run.ended > 0


def test_verify_one_volume_leaves_the_others_alone() -> None:
    pair = VerifiedPair()
    pair.verify.start(FAST, repeat=False, only=2)
    while (run := pair.verify.run) is not None and run.state == "running":
        pair.now += 1.0
        pair.verify.step(pair.now)
        pair.commit_all()
    journal = pair.a.journal
    catalog = journal.catalog
    found = read_batches(
        journal.ring,
        journal.restored,
        journal.head.position,
        catalog.group_id,
        catalog.history,
        1 << 20,
    )
    records = [each for batch in found.batches for each in batch.records()]
    assert {(each.kind, each.volume_id) for each in records} == {(RecordKind.VERIFY, 2)}
    assert len(records) == VOLUMES[1].size_bytes // CHUNK


def test_verify_sends_nothing_into_a_journal_that_is_nearly_full() -> None:
    primary = Primary()
    verify, sent = _verify_of(primary)
    index = 0
    while primary.journal.used_fraction < HOLD_FROM_FILL:
        primary.write(1, index % 16 * 4096, b"z" * 4096)
        assert primary.commit.step(0.0)
        index += 1
    verify.start(FAST, repeat=False)
    verify.step(0.0)
    verify.step(10.0)
    assert sent == []
    assert "80%" in verify.held


def test_verify_what_the_primary_cannot_read_is_counted_and_no_digest_is_sent() -> None:
    pair = VerifiedPair()
    pair.a.machine["wal"].faults.append(Fault("read", forever=True))
    pair.run_pass()
    assert pair.verify.unreadable_bytes == VOLUMES[1].size_bytes
    assert pair.restore.judge.verified_bytes == VOLUMES[0].size_bytes


def test_judge_passes_over_what_lies_below_the_head_at_the_start() -> None:
    """Model m6: after a crash the volume may hold later records than the verify record."""
    pair = VerifiedPair()
    pair.a.write(1, 0, b"a" * 512)
    pair.commit_all()
    pair.follow()
    restored = pair.b.journal.body.restored
    pair.verify.start(FAST, repeat=False)
    pair.verify.step(pair.now)
    pair.verify.step(pair.now + 10)
    pair.commit_all()
    pair.a.write(1, 0, b"b" * 512)
    pair.commit_all()
    pair.a.journal.publish()
    pair.pull.due_at = float("-inf")
    pair.pull.step(pair.now)
    while pair.restore.step(pair.now):
        pass
    assert pair.restore.judge.verified_bytes == MOST_UNDER_WAY * CHUNK
    pair.restart_b()  # killed before its checkpoint: the volume is ahead of it
    assert pair.b.journal.body.restored == restored
    while pair.restore.step(pair.now):
        pass
    assert pair.restore.judge.skipped_bytes == MOST_UNDER_WAY * CHUNK
    assert pair.restore.judge.differs == []


def test_judge_is_silent_while_the_site_is_inconsistent() -> None:
    pair = VerifiedPair()
    _write_everywhere(pair, random.Random(2))
    pair.flip(1, 99)
    pair.b.journal.publish(mark={INCONSISTENT: "a gap"})
    pair.run_pass()
    assert pair.restore.judge.differs == []
    assert pair.restore.judge.skipped_bytes == ALL_BYTES
    pair.b.journal.publish(unmark={INCONSISTENT})
    pair.run_pass()
    assert [(each.volume_id, each.offset) for each in pair.restore.judge.differs] == [(1, 0)]


def test_judge_knows_after_a_restart_what_differed_until_a_pass_agrees() -> None:
    pair = VerifiedPair()
    _write_everywhere(pair, random.Random(3))
    pair.flip(2, CHUNK * 8 + 5)
    pair.run_pass()
    pair.restart_b()
    expected = [(2, CHUNK, CHUNK)]
    known = pair.restore.judge.differs
    assert [(each.volume_id, each.offset, each.length) for each in known] == expected
    pair.flip(2, CHUNK * 8 + 5)  # somebody mends it by hand
    pair.run_pass()
    assert pair.b.journal.body.verified == VerifyNote(found=1)


def test_judge_lists_the_first_pieces_in_its_page_and_the_rest_when_these_are_mended() -> None:
    pair = VerifiedPair()
    _write_everywhere(pair, random.Random(4))
    places = range(0, VOLUMES[0].size_bytes, 2 * CHUNK)
    assert len(places) > MOST_LISTED
    for at in places:
        pair.flip(1, at * 8)
    pair.run_pass()
    note = pair.b.journal.body.verified
    assert [each.offset for each in note.differs] == list(places)[:MOST_LISTED]
    assert note.unlisted_bytes == (len(places) - MOST_LISTED) * CHUNK
    assert note.found == len(places)
    ask_repair(pair.b.journal)
    pair.run_repair()
    assert pair.b.journal.body.verified == VerifyNote(found=len(places))


def test_repair_sends_a_piece_once_for_each_request() -> None:
    pair = VerifiedPair()
    _write_everywhere(pair, random.Random(5))
    pair.flip(1, 0)
    pair.run_pass()
    assert pair.repair.look("b", pair.b.journal.body.verified) == 0, "nobody has asked"
    first = ask_repair(pair.b.journal)
    note = pair.b.journal.body.verified
    assert pair.repair.look("b", note) == 1
    assert pair.repair.look("b", note) == 0
    assert pair.a.commit.waiting_own == 2
    pair.commit_all()
    pair.b_volumes[1].device.faults.append(Fault("write", effect="lost"))  # type: ignore[attr-defined]
    pair.follow()
    assert [each.offset for each in pair.b.journal.body.verified.differs] == [0], "the disk lied"
    assert pair.repair.look("b", pair.b.journal.body.verified) == 0
    assert ask_repair(pair.b.journal) > first
    pair.run_repair()
    assert pair.restore.judge.differs == []


def test_page_carries_run_and_findings_over_restarts() -> None:
    primary = Primary()
    verify, _ = _verify_of(primary)
    verify.start(5.0, repeat=True, only=2)
    again = Journal.open(primary.device, Owner("orders", "a", BOOT, ("b",)))
    assert again.body.verify_run == VerifyRun(
        state="running", rate=5.0, repeat=True, number=1, only=2
    )


@pytest.mark.parametrize(
    "piece", [Differing(1, -512, 512, 0), Differing(1, 0, 0, 0), Differing(1, 100, 512, 0)]
)
def test_page_with_a_piece_that_cannot_be_is_refused(piece: Differing) -> None:
    page = Primary().journal.page
    faulty = replace(page.body, verified=VerifyNote(differs=(piece,)))
    content = encode_page(type(page)(1, page.group_id, page.journal_id, page.boot_id, faulty))
    with pytest.raises(PageDamaged, match="lies in no volume"):
        decode_page(content)


def test_judge_forgets_what_differed_on_a_volume_that_is_removed() -> None:
    pair = VerifiedPair()
    _write_everywhere(pair, random.Random(6))
    pair.flip(2, 0)
    pair.run_pass()
    assert pair.b.journal.body.verified.differs
    gone = encode_event(VolumeChange("remove", 2, "wal", VOLUMES[1].size_bytes))
    pair.a.commit.submit_control([ControlRecord(RecordKind.VOLUME, gone)])
    pair.commit_all()
    pair.follow()
    assert pair.b.journal.body.verified == VerifyNote(found=1)

"""The sync link: what an answer means, what a loss means, and what it costs (claims 17, 28, 29)."""

from __future__ import annotations

import threading

import pytest

from replicator.errors import LegLost, ShutOut
from replicator.group.leg_thread import LegThread
from replicator.journal.journal import DEGRADED, FENCED, Journal, Owner
from replicator.journal.seal import seal
from replicator.movers.sync_link import LinkState
from tests.fakes.group_on_sim import BOOT
from tests.fakes.sync_on_sim import SyncPair


def durable_head(pair: SyncPair) -> int:
    """What the near site's owner believes after it has looked."""
    while pair.near.step(0.0):
        pass
    return pair.near_journal.head.position


def test_commit_in_sync_costs_one_write_and_one_flush_a_batch_at_the_near_site() -> None:
    pair = SyncPair().in_sync()
    writes, flushes = pair.leg_view.writes, pair.leg_view.flushes
    for number in range(20):
        pair.write(1, 4096 * number, bytes([number]) * 4096)
        assert pair.commit.step(0.0)
    assert len(pair.answers.requests) == 20
    assert (pair.leg_view.writes - writes, pair.leg_view.flushes - flushes) == (20, 20)


def test_near_ring_holds_the_same_bytes_at_the_same_position() -> None:
    pair = SyncPair().in_sync()
    for number in range(8):
        pair.write(1 + number % 2, 4096, bytes([number]) * 4096)
        pair.commit.step(0.0)
    pair.link.step(0.0)  # says what is durable in both, so that the last batch counts, too
    head = pair.journal.head
    assert durable_head(pair) == head.position
    assert pair.near_journal.head == head
    for ring in (pair.journal.ring, pair.near_journal.ring):
        assert bytes(ring.read(0, head.position)) == bytes(pair.journal.ring.read(0, head.position))


def test_near_site_that_never_met_its_primary_holds_hosts_until_it_has() -> None:
    pair = SyncPair()
    assert not pair.link.admit()
    assert "has not met this primary yet" in pair.link.reason
    assert pair.link.held
    pair.near.step(0.0)
    assert pair.link.admit()
    assert not pair.link.held


def test_leg_lost_or_stop_answers_nobody_until_it_is_back() -> None:
    pair = SyncPair("sync-or-stop").in_sync()
    pair.reachable = False
    request = pair.write(1, 0, b"x" * 4096)
    for _ in range(3):
        assert not pair.commit.step(0.0)
    assert pair.link.held and pair.link.state is LinkState.LOST
    assert pair.answers.requests == []
    pair.link.step(0.0)
    pair.reachable = True
    pair.link.step(0.0)
    assert pair.commit.step(0.0)
    assert pair.answers.requests == [request]
    pair.link.step(0.0)
    assert durable_head(pair) == pair.journal.head.position


def test_leg_lost_or_degrade_states_it_durably_before_the_answer_and_catches_up() -> None:
    pair = SyncPair("sync-or-degrade").in_sync()
    pair.reachable = False
    for number in range(5):
        pair.write(1, 4096 * number, b"x" * 4096)
        assert pair.commit.step(0.0)
        assert DEGRADED in pair.journal.body.marks
    assert len(pair.answers.requests) == 5
    assert pair.link.behind_bytes > 0
    pair.reachable = True
    pair.link.step(0.0)
    assert pair.link.state is LinkState.SYNCED
    assert DEGRADED not in pair.journal.body.marks
    assert durable_head(pair) == pair.journal.head.position


def test_near_site_that_lost_power_between_write_and_flush_is_not_believed() -> None:
    """Model m11: it is back at once, and its flush has flushed nothing."""
    pair = SyncPair("sync-or-stop").in_sync()
    pair.write(1, 0, b"x" * 4096)
    put = pair.near_device.put_from_afar

    def put_and_lose(offset: int, content: bytes) -> None:
        put(offset, content)
        pair.near_machine.lose_power("none")

    pair.near_device.put_from_afar = put_and_lose  # type: ignore[method-assign]
    assert not pair.commit.step(0.0)
    assert pair.answers.requests == []
    pair.near_device.put_from_afar = put  # type: ignore[method-assign]
    pair.link.step(0.0)
    assert pair.commit.step(0.0)


def test_connection_that_cannot_be_told_has_the_batch_read_back() -> None:
    pair = SyncPair("sync-or-stop")
    pair.leg_view.connection = lambda: None  # type: ignore[method-assign]
    pair.in_sync()
    pair.write(1, 0, b"x" * 4096)
    assert pair.commit.step(0.0)
    pair.near_device.put_from_afar = lambda offset, content: None  # type: ignore[method-assign]
    pair.write(1, 0, b"y" * 4096)
    assert not pair.commit.step(0.0)
    assert "is not there" in pair.link.reason


def test_leg_that_hangs_stalls_nothing_but_itself() -> None:
    """F47: or-degrade goes on after the detection time, the hung call ends when it may."""
    calls = LegThread("b")
    pair = SyncPair("sync-or-degrade", calls).in_sync()
    let_go = threading.Event()
    put = pair.near_device.put_from_afar

    def hang(offset: int, content: bytes) -> None:
        assert let_go.wait(30)
        put(offset, content)

    pair.near_device.put_from_afar = hang  # type: ignore[method-assign]
    request = pair.write(1, 0, b"x" * 4096)
    assert pair.commit.step(0.0)
    assert pair.answers.requests == [request]
    assert DEGRADED in pair.journal.body.marks
    assert "has not answered" in pair.link.reason
    let_go.set()
    pair.near_device.put_from_afar = put  # type: ignore[method-assign]
    for _ in range(50):
        pair.link.step(0.0)
        if pair.link.state is LinkState.SYNCED:
            break
    assert pair.link.state is LinkState.SYNCED
    assert calls.stop(10)


def near_owner(pair: SyncPair) -> Journal:
    return Journal.open(pair.near_device, Owner("orders", "b", BOOT, ("a",)))


def test_seal_takes_the_last_answered_batch_in_and_shuts_the_primary_out() -> None:
    pair = SyncPair("sync-or-stop").in_sync()
    pair.write(1, 0, b"x" * 4096)
    assert pair.commit.step(0.0)
    head = pair.journal.head
    assert durable_head(pair) < head.position  # nobody has spoken of the last batch yet
    shut: list[str] = []
    journal = near_owner(pair)
    assert seal(journal, lambda: shut.append("out"), "a is gone") == head
    assert shut == ["out"]
    assert journal.body.sealed == head.pair
    assert seal(near_owner(pair), lambda: shut.append("again"), "twice") == head
    assert shut == ["out"]
    with pytest.raises(ShutOut, match="a is gone"):
        pair.link.step(0.0)


def test_seal_that_was_cut_short_leaves_a_mark_that_the_primary_heeds() -> None:
    pair = SyncPair("sync-or-degrade").in_sync()

    def fails() -> None:
        raise LegLost("the target does not answer")

    with pytest.raises(LegLost):
        seal(near_owner(pair), fails, "a is gone")
    assert FENCED in near_owner(pair).body.marks
    pair.generation += 1  # the leg is lost, so the primary would degrade
    pair.write(1, 0, b"x" * 4096)
    with pytest.raises(ShutOut):
        pair.commit.step(0.0)
    assert pair.answers.requests == []


def test_primary_restarted_adopts_what_only_the_near_ring_holds() -> None:
    """Model m3: a batch that its own ring lost is whole at the near site."""
    pair = SyncPair("sync-or-stop").in_sync()
    pair.write(1, 0, b"x" * 4096)
    prepared = pair.commit.prepare()
    assert prepared is not None
    length = prepared.end.position - pair.journal.head.position
    pair.leg.put(prepared.content[:length], prepared.end)  # and then a loses its power
    before = pair.journal.head.position
    pair.leg.connect()
    assert pair.leg.adopt() == 1
    assert pair.journal.head == prepared.end
    assert pair.journal.head.position == before + length

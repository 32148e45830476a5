"""The commit loop with its threads: everything answered once, in order, or not at all."""

from __future__ import annotations

import threading
from collections.abc import Sequence

from replicator.codec.batch import Point
from replicator.codec.page import PeerNote
from replicator.errors import JournalFailed
from replicator.group.commit_runner import CommitRunner
from replicator.model import HostWrite, WriteKind
from replicator.movers.commit import Commit
from tests.fakes.group_on_sim import Primary, plain_buffer
from tests.sim.devices import Fault

DEADLINE = 20.0


class Counted:
    """An AnswerSink that lets a test wait for a number of answers."""

    def __init__(self) -> None:
        self.order: list[object] = []
        self._changed = threading.Condition()

    def answer(self, requests: Sequence[HostWrite]) -> None:
        with self._changed:
            self.order.extend(request.tag for request in requests)
            self._changed.notify_all()

    def wait_for(self, count: int) -> bool:
        with self._changed:
            return self._changed.wait_for(lambda: len(self.order) >= count, DEADLINE)


def test_runner_many_submitters_every_request_is_answered_once_in_its_order() -> None:
    primary = Primary(peers=())
    runner = CommitRunner(primary.commit, primary.volumes, lambda error: None)
    sinks = [Counted() for _ in range(4)]
    runner.start()

    def submit(sink: Counted, base: int) -> None:
        for index in range(0, 60, 3):
            entry = runner.submit_alone if index % 2 else runner.submit
            entry(
                [
                    HostWrite(
                        sink,
                        1,
                        WriteKind.WRITE,
                        (base + index + step) * 512 % (128 << 10),
                        512,
                        [bytes([base % 255 + 1]) * 512],
                        tag=index + step,
                    )
                    for step in range(3)
                ]
            )

    threads = [
        threading.Thread(target=submit, args=(sink, 60 * number))
        for number, sink in enumerate(sinks)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(DEADLINE)
    assert all(sink.wait_for(60) for sink in sinks)
    runner.stop()
    assert [sink.order for sink in sinks] == [list(range(60))] * 4
    assert primary.journal.head.sequence == 240
    assert primary.commit.applied == primary.journal.head


def test_runner_journal_failure_halts_and_answers_nothing_more() -> None:
    primary = Primary(peers=())
    halted = threading.Event()
    reasons: list[Exception] = []

    def on_halt(error: Exception) -> None:
        reasons.append(error)
        halted.set()

    primary.device.faults.append(Fault("flush"))
    runner = CommitRunner(primary.commit, primary.volumes, on_halt)
    sink = Counted()
    runner.start()
    request = HostWrite(sink, 1, WriteKind.WRITE, 0, 512, [bytes(512)], tag=1)
    runner.submit([request])
    assert halted.wait(DEADLINE)
    runner.submit([request])
    runner.stop()
    assert sink.order == []
    assert isinstance(reasons[0], JournalFailed)


def _write(sink: Counted, tag: object, length: int = 512) -> HostWrite:
    return HostWrite(sink, 1, WriteKind.WRITE, 0, length, [bytes(length)], tag=tag)


def test_runner_submit_alone_when_idle_answers_before_it_returns() -> None:
    primary = Primary(peers=())
    runner = CommitRunner(primary.commit, list(primary.volumes.values()), lambda error: None)
    sink = Counted()
    runner.start()
    for number in range(20):
        runner.submit_alone([_write(sink, number)])
        assert sink.order == list(range(number + 1))
    runner.stop()
    assert primary.journal.head.sequence == 20


def test_runner_submit_alone_with_a_full_ring_is_answered_when_there_is_room() -> None:
    primary = Primary(peers=("b",))  # b has received nothing: nothing can be reclaimed
    runner = CommitRunner(primary.commit, list(primary.volumes.values()), lambda error: None)
    sink = Counted()
    runner.start()
    size = 64 << 10
    most = primary.journal.free_bytes // size + 1
    for number in range(most):
        runner.submit_alone([_write(sink, number, size)])
    assert runner.held
    answered = len(sink.order)
    assert answered < most
    head = primary.journal.head
    primary.journal.peers["b"] = PeerNote(bytes(16), 1, head.pair, head.pair)
    for _ in range(2):  # both copies must say so before space is free
        primary.journal.publish(restored=head)
    assert sink.wait_for(most)
    runner.stop()
    assert sink.order == list(range(most))


def test_runner_submit_alone_on_a_failed_journal_halts_and_stop_returns() -> None:
    primary = Primary(peers=())
    reasons: list[Exception] = []
    primary.device.faults.append(Fault("flush"))
    runner = CommitRunner(primary.commit, list(primary.volumes.values()), reasons.append)
    sink = Counted()
    runner.start()
    runner.submit_alone([_write(sink, 1)])
    assert isinstance(reasons[0], JournalFailed)
    runner.submit_alone([_write(sink, 2)])
    runner.stop()
    assert sink.order == []


class HeldLink:
    """A sync link whose near site is away for ever."""

    held = True

    def begin(self, content: memoryview, end: Point) -> None: ...

    def finish(self, content: memoryview, end: Point) -> bool:
        return False


def test_runner_submit_alone_with_a_held_sync_link_returns_and_stop_does_too() -> None:
    primary = Primary(peers=())
    commit = Commit(primary.journal, primary.volumes, primary.clock, plain_buffer, link=HeldLink())
    runner = CommitRunner(commit, primary.volumes, lambda error: None)
    sink = Counted()
    runner.start()
    caller = threading.Thread(target=runner.submit_alone, args=([_write(sink, 1)],), daemon=True)
    caller.start()
    caller.join(DEADLINE)
    assert not caller.is_alive(), "a front end's thread must not wait for the near site"
    runner.stop()
    assert sink.order == []

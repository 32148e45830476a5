"""Volumes that come, grow and go while hosts write, at three sites, with kills (claims 9-11)."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import pytest

from replicator.daemon.control import AnsweredError
from replicator.embedded.lab import EmbeddedLab, LabPlan
from replicator.errors import Refused
from replicator.status import VolumeChanged, VolumeListing
from tests.embedded.conftest import MakeLab
from tests.embedded.writer import SteadyWriter
from tests.fakes.nbd_client import NbdClient
from tests.tally import count

MIB = 1 << 20
PLAN = LabPlan(volumes={"one": "4MiB", "two": "4MiB"}, journal="32MiB", interval={"fixed": "50ms"})
GROWN_AND_ADDED = {"one": "8MiB", "two": "4MiB", "three": "4MiB"}


@pytest.fixture
def lab(make_lab: MakeLab) -> EmbeddedLab:
    return make_lab(PLAN)


@pytest.fixture
def writer(lab: EmbeddedLab) -> Iterator[SteadyWriter]:
    lab.start()
    made = SteadyWriter(lab.primary.nbd_socket, {"one": 4 * MIB, "two": 4 * MIB}, seed=5)
    made.start()
    made.wait_for(50)
    for name in ("b", "c"):
        until(lambda name=name: lab.sites[name].status().own.state == "following", name)
    yield made
    made.stop()


def change(lab: EmbeddedLab, action: str, name: str) -> VolumeChanged:
    """Ask for a change until every site is ready for it."""
    deadline = time.monotonic() + 60
    while True:
        try:
            arguments = {"action": action, "name": name}
            return lab.primary.ask("volume-change", arguments, VolumeChanged)
        except AnsweredError as error:
            assert error.exit_code == Refused.exit_code
            assert "not every site is prepared" in str(error), error
            assert time.monotonic() < deadline, error
        time.sleep(0.05)


def until(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, f"waited 60 s for {what}"
        time.sleep(0.05)


def finish(lab: EmbeddedLab, writer: SteadyWriter, volumes: tuple[str, ...]) -> None:
    """Every site ends with the same bytes, and they are what the host was answered."""
    writer.stop()
    lab.wait_converged()
    lab.stop()
    for volume, digests in lab.digests(volumes).items():
        assert len(set(digests.values())) == 1, f"{volume}: {digests}"
        writer.judge(volume, lab.primary.volume_path(volume))


def test_volume_is_added_and_another_grown_while_the_host_writes(
    lab: EmbeddedLab, writer: SteadyWriter
) -> None:
    lab.set_volumes(GROWN_AND_ADDED)
    change(lab, "add", "three")
    change(lab, "grow", "one")
    writer.set_size("three", 4 * MIB)
    with NbdClient(lab.primary.nbd_socket, "one") as client:
        assert client.size_bytes == 8 * MIB, "a client that connects now sees the new size"
    writer.wait_for(100)
    finish(lab, writer, ("one", "two", "three"))
    count("F48")


def test_added_and_grown_volumes_survive_kills_of_every_site(
    lab: EmbeddedLab, writer: SteadyWriter
) -> None:
    lab.set_volumes(GROWN_AND_ADDED)
    lab.sites["b"].kill()
    lab.sites["b"].start()
    change(lab, "add", "three")
    until(lambda: all(each.ready for each in listing(lab).changes), "promises to grow one")
    lab.sites["c"].kill()  # it has promised to grow one, and has not received the event yet
    writer.set_size("three", 4 * MIB)
    writer.wait_for(50)
    change(lab, "grow", "one")
    lab.primary.kill()
    lab.primary.start()
    writer.set_size("one", 8 * MIB)
    writer.wait_for(50)
    lab.sites["c"].start()
    lab.sites["b"].kill()
    lab.sites["b"].start()
    writer.wait_for(50)
    finish(lab, writer, ("one", "two", "three"))


def test_volume_is_removed_under_a_client_and_its_id_never_comes_back(
    lab: EmbeddedLab, writer: SteadyWriter
) -> None:
    writer.drop("two")
    client = NbdClient(lab.primary.nbd_socket, "two")
    assert client.write(0, b"w" * 4096) == 0
    lab.set_volumes({"one": "4MiB"})
    change(lab, "remove", "two")
    assert client.write(0, b"x" * 4096) != 0, "a write after the removal is refused"
    client.socket.close()
    with pytest.raises(ConnectionError, match="exports: one"):
        NbdClient(lab.primary.nbd_socket, "two")
    writer.wait_for(50)
    lab.sites["b"].kill()
    lab.sites["b"].start()
    lab.set_volumes({"one": "4MiB", "other": {"id": 2, "size": "4MiB"}})
    until(lambda: bool(listing(lab).violations), "the reused id to be noticed")
    assert "never used again" in listing(lab).violations[0]
    with pytest.raises(AnsweredError, match="never used again"):
        lab.primary.ask("volume-change", {"action": "add", "name": "other"}, VolumeChanged)
    finish(lab, writer, ("one",))


def test_volume_shrunk_is_refused_by_name_and_the_group_goes_on(
    lab: EmbeddedLab, writer: SteadyWriter
) -> None:
    lab.set_volumes({"one": "2MiB", "two": "4MiB"})
    until(lambda: bool(listing(lab).violations), "the smaller size to be noticed")
    assert (
        "volume one has 4.0 MiB in the group, 2.0 MiB in the topology"
        in (listing(lab).violations[0])
    )
    writer.wait_for(20)
    finish(lab, writer, ("one", "two"))


def test_added_volume_on_a_device_that_is_not_blank_is_refused_until_it_is(
    lab: EmbeddedLab, writer: SteadyWriter
) -> None:
    stained = lab.sites["c"].volume_path("three")
    stained.write_bytes(b"somebody's data" + bytes(4 * MIB - 15))
    lab.set_volumes({"one": "4MiB", "two": "4MiB", "three": "4MiB"})
    until(lambda: bool(listing(lab, "c").changes), "c to notice")
    until(lambda: "not blank" in listing(lab, "c").changes[0].prepared["c"], "c to refuse")
    with pytest.raises(AnsweredError, match=r"not every site is prepared: .*c: "):
        lab.primary.ask("volume-change", {"action": "add", "name": "three"}, VolumeChanged)
    stained.write_bytes(bytes(4 * MIB))
    change(lab, "add", "three")
    writer.set_size("three", 4 * MIB)
    writer.wait_for(50)
    finish(lab, writer, ("one", "two", "three"))


def listing(lab: EmbeddedLab, site: str = "a") -> VolumeListing:
    return lab.sites[site].ask("volumes", {}, VolumeListing)

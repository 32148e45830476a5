"""Images of every released version of the format are read for ever (F43)."""

from __future__ import annotations

import json
import zlib
from pathlib import Path

import pytest

from replicator.codec.batch import MAGIC, VERSION
from replicator.codec.page import PageDamaged, decode_page
from replicator.errors import NotAJournal
from replicator.journal.journal import Journal, Owner
from replicator.journal.layout import OWNER_PAGE_AT
from replicator.journal.recovery import recover
from replicator.model import BLOCK
from replicator.movers.restore import Restore
from replicator.seams.volume import DataVolume
from tests.sim.devices import Machine, SimJournalDevice, SimVolumeDevice
from tests.sim.plans import SITES
from tests.sim.site import GROUP

GOLDEN = Path(__file__).parent.parent / "golden"
VERSIONS = sorted(int(path.stem[1:]) for path in GOLDEN.glob("v*.json"))


def _disk(version: int, site: str, device: str) -> bytearray:
    return bytearray(zlib.decompress((GOLDEN / f"v{version}-{site}-{device}.z").read_bytes()))


def _journal(version: int, site: str) -> Journal:
    content = _disk(version, site, "journal")
    device = SimJournalDevice(Machine(site, 1), "journal", len(content), content)
    peers = tuple(each for each in SITES if each != site)
    return Journal.open(device, Owner(GROUP, site, bytes(16), peers))


@pytest.mark.parametrize("site", SITES)
@pytest.mark.parametrize("version", VERSIONS)
def test_golden_images_recover_to_what_the_release_saw(version: int, site: str) -> None:
    expected = json.loads((GOLDEN / f"v{version}.json").read_text())["sites"][site]
    journal = _journal(version, site)
    machine = Machine(site, 2)
    volumes = {}
    for entry in journal.catalog.volumes:
        content = _disk(version, site, entry.name)
        device = SimVolumeDevice(machine, entry.name, len(content), content)
        volumes[entry.id] = DataVolume(entry.id, entry.name, entry.size_bytes, device)
    recover(journal)
    restore = Restore(journal, volumes)
    while restore.step(0.0):
        pass
    assert journal.head.position == expected["head"] > expected["ring_bytes"], "the ring wrapped"
    assert journal.head.digest.hex() == expected["digest"]
    assert journal.head.sequence == expected["records"]
    assert journal.body.role == expected["role"]
    assert {
        str(volume_id): zlib.crc32(machine[volume.name].content)
        for volume_id, volume in volumes.items()
    } == expected["volumes"]


def test_golden_images_exist_for_the_current_version() -> None:
    assert VERSION in VERSIONS
    assert sum(path.stat().st_size for path in GOLDEN.glob("*.z")) < 100 << 10


def test_page_of_a_newer_version_is_refused_with_its_number() -> None:
    content = _disk(VERSION, "a", "journal")
    for copy in OWNER_PAGE_AT:
        content[copy + 8] = VERSION + 1
    with pytest.raises(PageDamaged):
        decode_page(bytes(content[:BLOCK]))
    device = SimJournalDevice(Machine("a", 1), "journal", len(content), content)
    with pytest.raises(NotAJournal):
        Journal.open(device, Owner(GROUP, "a", bytes(16)))
    assert content.count(MAGIC) > 0

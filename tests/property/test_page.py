"""Pages: two copies, any of which may rot; garbage is refused (F34, F35)."""

from __future__ import annotations

import random
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from replicator.codec.digest import digest_of_parts
from replicator.codec.history import (
    Catalog,
    Epoch,
    History,
    VolumeEntry,
    decode_catalog,
    encode_catalog,
)
from replicator.codec.page import Page, PageDamaged, decode_page, encode_page
from replicator.errors import NotAJournal
from replicator.journal.pages import next_page, read_statement, write_page
from replicator.model import BLOCK
from tests.property.strategies import digests, names, pages, positions
from tests.sim.devices import Machine, SimJournalDevice

_DIGEST_AT = 72
_BODY_AT = 88
"""Where a page's digest and body stand (docs/formats/journal.md)."""


@given(pages())
def test_page_written_then_read_is_the_same(page: Page) -> None:
    assert decode_page(encode_page(page)) == page


def _device_with_two_copies() -> tuple[SimJournalDevice, Page, Page]:
    older = pages().example()
    newer = next_page(older, older.body, older.boot_id)
    device = SimJournalDevice(Machine("a", 1), "journal", 4 * BLOCK)
    write_page(device, older)
    write_page(device, newer)
    return device, newer, older


@pytest.mark.filterwarnings("ignore::hypothesis.errors.NonInteractiveExampleWarning")
def test_page_with_any_byte_flipped_leaves_the_other_copy_in_use() -> None:
    device, newer, older = _device_with_two_copies()
    chance = random.Random(34)
    for at in range(2 * BLOCK):
        bit = 1 << chance.randrange(8)
        device.content[at] ^= bit
        statement = read_statement(device)
        survivor = newer if at // BLOCK == older.generation % 2 else older
        assert statement.newer == statement.older == survivor, at
        assert statement.damaged is not None
        device.content[at] ^= bit


@pytest.mark.filterwarnings("ignore::hypothesis.errors.NonInteractiveExampleWarning")
def test_page_with_both_copies_flipped_is_refused() -> None:
    device, _, _ = _device_with_two_copies()
    chance = random.Random(35)
    for at in range(BLOCK):
        places = at, BLOCK + chance.randrange(BLOCK)
        for place in places:
            device.content[place] ^= 1 << (at % 8)
        with pytest.raises(NotAJournal):
            read_statement(device)
        for place in places:
            device.content[place] ^= 1 << (at % 8)


@given(pages())
def test_page_in_the_wrong_copy_is_not_believed(page: Page) -> None:
    device = SimJournalDevice(Machine("a", 1), "journal", 4 * BLOCK)
    device.write((1 - page.generation % 2) * BLOCK, encode_page(page))
    with pytest.raises(NotAJournal):
        read_statement(device)


@given(st.binary(max_size=BLOCK))
def test_page_from_garbage_is_refused(content: bytes) -> None:
    with pytest.raises(PageDamaged):
        decode_page(content + bytes(BLOCK - len(content)))


_odd = st.one_of(
    st.none(),
    st.integers(-(1 << 63), (1 << 64) - 1),
    st.sampled_from([-1, 0, 1, 511, 4095, 4097, 1 << 62]),
    st.text(max_size=5),
    st.binary(max_size=20),
    st.lists(st.integers(-(1 << 63), (1 << 64) - 1), max_size=5),
    st.dictionaries(st.text(max_size=3), st.integers(-9, 9), max_size=2),
)


def _with_body(page: Page, body: dict[str, Any]) -> bytes | None:
    packed = msgspec.msgpack.encode(body)
    if len(packed) > BLOCK - _BODY_AT:
        return None
    block = bytearray(encode_page(page))
    block[12:16] = len(packed).to_bytes(4, "little")
    block[_BODY_AT:] = packed + bytes(BLOCK - _BODY_AT - len(packed))
    block[_DIGEST_AT:_BODY_AT] = digest_of_parts((block[:_DIGEST_AT], block[_BODY_AT:]))
    return bytes(block)


@settings(max_examples=600, deadline=None)
@given(pages(), st.data())
def test_page_by_a_faulty_owner_is_refused_or_makes_sense(page: Page, data: st.DataObject) -> None:
    """Any statement replaced by something odd, with a digest that holds (F35)."""
    body = msgspec.to_builtins(page.body, builtin_types=(bytes,))
    for key in data.draw(
        st.lists(st.sampled_from(sorted(body)), min_size=1, max_size=3, unique=True)
    ):
        if isinstance(body[key], list | tuple) and body[key] and data.draw(st.booleans()):
            body[key] = list(body[key])
            body[key][data.draw(st.integers(0, len(body[key]) - 1))] = data.draw(_odd)
        else:
            body[key] = data.draw(_odd)
    block = _with_body(page, body)
    if block is None:
        return
    try:
        found = decode_page(block).body
    except PageDamaged:
        return
    assert found.ring_size > 0 and found.ring_size % BLOCK == 0
    assert found.ring_offset > 0 and found.ring_offset % BLOCK == 0
    assert 0 <= found.reclaim <= found.restored.position <= found.head.position
    assert found.head.position <= found.reclaim + found.ring_size
    assert len(found.head.digest) == len(found.restored.digest) == 16
    assert BLOCK <= found.batch_bound <= found.ring_size // 8


@given(
    names,
    digests,
    st.lists(st.builds(Epoch, digests, st.integers(0, 99), positions, digests, names), max_size=9),
    st.lists(
        st.builds(VolumeEntry, st.integers(1, 99), names, st.integers(1, 1 << 50)), max_size=9
    ),
)
def test_catalog_written_then_read_is_the_same(
    group: str, group_id: bytes, epochs: list[Epoch], volumes: list[VolumeEntry]
) -> None:
    catalog = Catalog(group, group_id, History(tuple(epochs)), tuple(volumes))
    assert decode_catalog(encode_catalog(catalog)) == catalog


@given(st.binary(max_size=200))
def test_catalog_from_garbage_is_refused(content: bytes) -> None:
    try:
        decode_catalog(content)
    except msgspec.MsgspecError:
        return

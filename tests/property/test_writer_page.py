"""The writer's page of a sync link: what is written is read, and garbage never is."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from replicator.codec.page import PageDamaged, decode_page, encode_page
from replicator.codec.writer_page import (
    WriterBody,
    WriterPage,
    decode_writer_page,
    encode_writer_page,
)
from replicator.journal.pages import read_writer_page, write_writer_page
from replicator.model import BLOCK
from tests.property.strategies import digests, names, pages, points, positions
from tests.sim.devices import Machine, SimJournalDevice

bodies = st.builds(
    WriterBody,
    site=names,
    epoch_id=digests,
    flushed=points,
    synced_since=st.none() | positions,
)
writer_pages = st.builds(
    WriterPage, st.integers(0, 1 << 60), digests, digests, digests, body=bodies
)


@given(writer_pages)
def test_writer_page_written_then_read_is_the_same(page: WriterPage) -> None:
    assert decode_writer_page(encode_writer_page(page)) == page


@given(writer_pages, pages())
def test_writer_page_is_never_taken_for_an_owner_page(page: WriterPage, owner: object) -> None:
    for decode, block in (
        (decode_page, encode_writer_page(page)),
        (decode_writer_page, encode_page(owner)),  # type: ignore[arg-type]
    ):
        try:
            decode(block)
        except PageDamaged as error:
            assert "kind" in str(error)
        else:
            raise AssertionError("a page of one kind was read as the other")


@given(writer_pages, st.integers(0, BLOCK - 1), st.integers(0, 7))
def test_writer_page_with_a_flipped_bit_leaves_the_copy_before(
    page: WriterPage, at: int, bit: int
) -> None:
    device = SimJournalDevice(Machine("b", 1), "journal", 8 * BLOCK)
    assert read_writer_page(device) is None
    newer = WriterPage(page.generation + 1, page.group_id, page.journal_id, page.boot_id, page.body)
    write_writer_page(device, page)
    write_writer_page(device, newer)
    assert read_writer_page(device) == newer
    device.content[2 * BLOCK + newer.generation % 2 * BLOCK + at] ^= 1 << bit
    assert read_writer_page(device) == page

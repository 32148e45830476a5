"""A page is one block: a statement with everything at its largest still fits into it."""

from __future__ import annotations

import msgspec

from replicator.codec.batch import Point
from replicator.codec.page import (
    CatalogRef,
    Differing,
    GapNote,
    Intent,
    OwnerBody,
    Page,
    PeerNote,
    PullNote,
    RestoreStop,
    VerifyNote,
    VerifyRun,
    decode_page,
    encode_page,
)
from replicator.codec.topology_file import MAXIMUM_SITES
from replicator.group.promotion import NOTE_LENGTH, UNCONFIRMED
from replicator.journal.journal import MARK_REASON_LENGTH
from replicator.journal.move import LONGEST_NAME
from replicator.movers.judge import MOST_LISTED

HUGE = 1 << 62
ID = bytes(range(16))
MARKS = ("halted", "fenced", "inconsistent", "degraded", UNCONFIRMED)


def _site(number: int) -> str:
    return f"s{number:02d}".ljust(15, "n")


def largest_body(letter: str = "r") -> OwnerBody:
    """Return a body with every field, each as large as it gets."""
    point = Point(HUGE, ID, HUGE, HUGE)
    return OwnerBody(
        group="g" * 15,
        site=_site(0),
        role="secondary",
        upstream=_site(1),
        ring_offset=1 << 20,
        ring_size=1 << 44,
        batch_bound=4 << 20,
        catalog=CatalogRef(131072, 65536, ID),
        head=point,
        restored=point,
        reclaim=HUGE,
        marks=dict.fromkeys(MARKS, letter * MARK_REASON_LENGTH),
        peers={
            _site(number): PeerNote(ID, HUGE, (HUGE, ID), (HUGE, ID), ID)
            for number in range(1, MAXIMUM_SITES)
        },
        pull=PullNote(_site(1), 3.3, "source nearly full, own journal full", HUGE, HUGE, HUGE),
        moved_from=(ID,) * 2,
        prepared={65_000 + number: ("v" * 15, HUGE) for number in range(5)},
        writer=_site(1),
        writer_epoch=ID,
        sealed=(HUGE, ID),
        restore_stop=RestoreStop("bookmark", HUGE, "b" * 63),
        maps=CatalogRef(196608, 425984, ID),
        gap=GapNote(ID, HUGE, HUGE, ID, HUGE),
        verified=VerifyNote(
            differs=tuple(Differing(65_535, HUGE, 1 << 45, HUGE) for _ in range(MOST_LISTED)),
            unlisted_bytes=HUGE,
            found=HUGE,
            repair=HUGE,
        ),
        verify_run=VerifyRun(
            state="finished",
            rate=1e12,
            repeat=True,
            number=HUGE,
            only=65_535,
            volume_id=65_535,
            offset=HUGE,
            began=HUGE,
            began_ns=HUGE,
            ended=HUGE,
            ended_ns=HUGE,
        ),
        intent=Intent(
            ID,
            HUGE,
            HUGE,
            tuple(_site(number) for number in range(1, MAXIMUM_SITES)),
            letter * NOTE_LENGTH,
        ),
        active_on=ID,
    )


def test_page_largest_body_has_every_field() -> None:
    """Who adds a field to the page says here how large it gets."""
    body = largest_body()
    for field in msgspec.structs.fields(OwnerBody):
        if not field.required and field.name != "moved_to":
            value = getattr(body, field.name)
            assert value and value != field.default, field.name


def test_page_with_everything_at_its_largest_fits_with_shorter_reasons() -> None:
    for letter in "rä":
        body = largest_body(letter)
        stated = decode_page(encode_page(Page(HUGE, ID, ID, ID, body))).body
        assert msgspec.structs.replace(stated, marks=body.marks) == body
        assert list(stated.marks) == list(MARKS)
        assert all(reason.startswith(letter * 10) for reason in stated.marks.values())


def test_page_that_has_room_keeps_reasons_whole() -> None:
    body = msgspec.structs.replace(largest_body(), peers={})
    assert decode_page(encode_page(Page(1, ID, ID, ID, body))).body == body


def test_page_of_a_journal_that_was_moved_has_room_for_the_name() -> None:
    moved = (ID, "/" * LONGEST_NAME)
    body = msgspec.structs.replace(largest_body("ä"), moved_to=moved, peers={}, prepared={})
    assert decode_page(encode_page(Page(1, ID, ID, ID, body))).body.moved_to == moved

"""Pages on a device: each in two copies, with one writer, generation by generation."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Protocol, TypeVar

from replicator.codec.page import OwnerBody, Page, PageDamaged, decode_page, encode_page
from replicator.codec.writer_page import WriterPage, decode_writer_page, encode_writer_page
from replicator.errors import NotAJournal
from replicator.journal.layout import OWNER_PAGE_AT, WRITER_PAGE_AT
from replicator.model import BLOCK
from replicator.seams.blockdevice import JournalDevice


@dataclass(frozen=True, slots=True)
class Statement:
    """Both copies of an owner's page as they were read at one moment.

    ``newer`` may not be durable yet where it is a peer's; whoever overwrites, reclaims or drops
    something on a page's word acts on ``older`` (model m10). With one valid copy they are equal.
    """

    newer: Page
    older: Page
    damaged: str | None = None
    """Why the other copy is not valid, or None."""


def read_statement(device: JournalDevice) -> Statement:
    """Read and judge both copies; NotAJournal if neither is valid."""
    pages, reasons = _read_copies(device, OWNER_PAGE_AT[0], decode_page)
    if not pages:
        raise NotAJournal(
            f"{device.name}: no valid journal page ({'; '.join(reasons)}); if this is the right"
            " device and it is new, format it: replicatorctl journal format"
        )
    return Statement(pages[-1], pages[0], reasons[0] if reasons else None)


class _Numbered(Protocol):
    @property
    def generation(self) -> int: ...


_P = TypeVar("_P", bound=_Numbered)


def _read_copies(
    device: JournalDevice, at: int, decode: Callable[[memoryview], _P]
) -> tuple[list[_P], list[str]]:
    """Return the valid copies of a page, oldest first, and why the others are not."""
    content = memoryview(device.read(at, 2 * BLOCK))
    pages: list[_P] = []
    reasons: list[str] = []
    for copy in (0, 1):
        try:
            page = decode(content[copy * BLOCK : (copy + 1) * BLOCK])
        except PageDamaged as error:
            reasons.append(f"copy {copy}: {error}")
            continue
        if page.generation % 2 != copy:
            reasons.append(f"copy {copy}: holds generation {page.generation}")
            continue
        pages.append(page)
    return sorted(pages, key=lambda page: page.generation), reasons


def read_writer_page(device: JournalDevice) -> WriterPage | None:
    """Return the newest valid writer's page, None if there is none."""
    pages, _ = _read_copies(device, WRITER_PAGE_AT[0], decode_writer_page)
    return pages[-1] if pages else None


def write_writer_page(device: JournalDevice, page: WriterPage) -> None:
    """Write a writer's page into its copy and flush: durable on return, as a leg's flush is."""
    device.write(WRITER_PAGE_AT[page.generation % 2], encode_writer_page(page))
    device.flush()


def write_page(device: JournalDevice, page: Page) -> None:
    """Write ``page`` into its copy and flush: durable on return."""
    device.write(OWNER_PAGE_AT[page.generation % 2], encode_page(page))
    device.flush()


def next_page(page: Page, body: OwnerBody, boot_id: bytes) -> Page:
    """Return the page of the next generation with ``body``."""
    return replace(page, generation=page.generation + 1, body=body, boot_id=boot_id)

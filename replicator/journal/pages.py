"""The owner's page on a device: two copies, one writer, generation by generation."""

from __future__ import annotations

from dataclasses import dataclass, replace

from replicator.codec.page import OwnerBody, Page, PageDamaged, decode_page, encode_page
from replicator.errors import NotAJournal
from replicator.journal.layout import OWNER_PAGE_AT
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
    content = memoryview(device.read(OWNER_PAGE_AT[0], 2 * BLOCK))
    pages: list[Page] = []
    reasons: list[str] = []
    for copy in (0, 1):
        try:
            page = decode_page(content[copy * BLOCK : (copy + 1) * BLOCK])
        except PageDamaged as error:
            reasons.append(f"copy {copy}: {error}")
            continue
        if page.generation % 2 != copy:
            reasons.append(f"copy {copy}: holds generation {page.generation}")
            continue
        pages.append(page)
    if not pages:
        raise NotAJournal(
            f"{device.name}: no valid journal page ({'; '.join(reasons)}); if this is the right"
            " device and it is new, format it: replicatorctl journal format"
        )
    pages.sort(key=lambda page: page.generation)
    return Statement(pages[-1], pages[0], reasons[0] if reasons else None)


def write_page(device: JournalDevice, page: Page) -> None:
    """Write ``page`` into its copy and flush: durable on return."""
    device.write(OWNER_PAGE_AT[page.generation % 2], encode_page(page))
    device.flush()


def next_page(page: Page, body: OwnerBody, boot_id: bytes) -> Page:
    """Return the page of the next generation with ``body``."""
    return replace(page, generation=page.generation + 1, body=body, boot_id=boot_id)

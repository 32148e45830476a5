"""Keep the volumes' last consistent state while a site is inconsistent.

Just before a site takes a gap its volumes are exactly a point of the log. Where the storage clones
at no cost (reflink, LVM thin) that state is kept as the image ``before-gap``, and dropped when the
mark is cleared. Where it cannot, the gap is taken all the same.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from replicator.errors import TowlineError
from replicator.group.image import Images
from replicator.journal.journal import Journal

log = logging.getLogger(__name__)

IMAGE = "before-gap"


class LastConsistent:
    """The image ``before-gap`` of one group at one site."""

    def __init__(self, journal: Journal, images: Images | None, now_ns: Callable[[], int]) -> None:
        """``images`` clones only where that costs nothing; None keeps nothing."""
        self._journal = journal
        self._images = images
        self._now_ns = now_ns
        self._looked = False

    def keep(self) -> str:
        """Keep the volumes as they are, before a gap is taken; return what to tell the operator.

        They durably hold the log up to the own head, and nothing more. A site that is
        inconsistent already keeps the image that it has.
        """
        journal, images = self._journal, self._images
        if images is None:
            return ""
        if journal.gap is None:
            if journal.head.position == 0:
                return ""
            try:
                self._drop()
                images.keep(IMAGE, journal.catalog, journal.head, self._position, self._now_ns())
            except TowlineError as error:
                log.warning("last consistent state not kept reason=%r", str(error))
                return ""
        elif not images.has(IMAGE):
            return ""
        self._looked = False
        return f"; the state before is kept as image {IMAGE}"

    def settle(self) -> None:
        """Drop the image when the site is consistent again; looks at the disk once."""
        if self._looked or self._journal.gap is not None or self._journal.body.gap is not None:
            return
        self._looked = True
        try:
            self._drop()
        except TowlineError as error:
            log.warning("image of the last consistent state not dropped reason=%r", str(error))

    def _drop(self) -> None:
        if self._images is not None and self._images.has(IMAGE):
            self._images.drop(IMAGE)
            log.info("image dropped name=%s", IMAGE)

    def _position(self) -> int:
        return self._journal.head.position

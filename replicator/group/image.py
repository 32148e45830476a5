"""Keep, list and drop images of a site's volumes: bases from which any later point is reached."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec

from replicator.codec import naming
from replicator.codec.batch import Point
from replicator.codec.history import Catalog
from replicator.codec.image_note import ImageNote, ImageVolume, decode_note, encode_note
from replicator.codec.topology import Site
from replicator.errors import DeviceUnusable, Refused, TowlineError, UsageError
from replicator.seams.clone import CloneStore, FileClones, ThinClones

_NAME = re.compile(r"[a-z][a-z0-9-]{0,30}")


class Images:
    """The images of one group at one site."""

    def __init__(
        self, site: Site, group: str, clones: CloneStore | None = None, *, copies: bool = True
    ) -> None:
        """``copies`` is whether files may be copied where their blocks cannot be shared."""
        self._site = site
        self._group = group
        self._folder = Path(naming.images_directory(site, group))
        self._clones = clones or (
            ThinClones() if site.devices.kind == "lvm" else FileClones(copies=copies)
        )

    def keep(
        self,
        name: str,
        catalog: Catalog,
        restart: Point,
        applied_at_most: Callable[[], int],
        now_ns: int,
    ) -> ImageNote:
        """Clone every volume of ``catalog`` and note what they lead to: durable on return.

        The volumes durably hold the log below ``restart``; ``applied_at_most`` is asked when the
        clones are there. Raises DeviceUnusable, Refused; clones of a failed try are dropped.
        """
        if not _NAME.fullmatch(name):
            raise UsageError(f"bad name {name!r}: expected a-z, then a-z, 0-9 or -, at most 31")
        if self.has(name):
            raise Refused(f"there is an image {name} already: replicatorctl image drop {name}")
        self._make_folder()
        volumes = [
            ImageVolume(
                id=entry.id,
                name=entry.name,
                size_bytes=entry.size_bytes,
                path=naming.image_volume_path(self._site, self._group, entry.name, name),
            )
            for entry in catalog.volumes
        ]
        try:
            for volume in volumes:
                self._clones.drop(volume.path)  # what an interrupted try has left
            how = [self._clones.clone(self._source(each.name), each.path) for each in volumes]
        except TowlineError:
            for volume in volumes:
                with contextlib.suppress(TowlineError):
                    self._clones.drop(volume.path)
            raise
        note = ImageNote(
            name=name,
            group=self._group,
            site=self._site.name,
            group_id=catalog.group_id.hex(),
            taken_at_ns=now_ns,
            how="copy" if "copy" in how else how[0] if how else "copy",
            restart=restart,
            consistent_from=applied_at_most(),
            volumes=tuple(volumes),
            retired=catalog.retired,
            as_of=catalog.as_of,
        )
        _write_durably(self._note_path(name), encode_note(note))
        return note

    def live(self, catalog: Catalog, restart: Point, applied_at_most: int) -> ImageNote:
        """Return the note of the site's own volumes as they are: a base that nobody has to keep."""
        return ImageNote(
            name="",
            group=self._group,
            site=self._site.name,
            group_id=catalog.group_id.hex(),
            taken_at_ns=0,
            how="volumes",
            restart=restart,
            consistent_from=applied_at_most,
            volumes=tuple(
                ImageVolume(
                    id=entry.id,
                    name=entry.name,
                    size_bytes=entry.size_bytes,
                    path=self._source(entry.name),
                )
                for entry in catalog.volumes
            ),
            retired=catalog.retired,
            as_of=catalog.as_of,
        )

    def list(self) -> list[ImageNote]:
        """Return every image, oldest point first; DeviceUnusable for a note that is unreadable."""
        notes = [self._read(path) for path in sorted(self._folder.glob("*.json"))]
        return sorted(notes, key=lambda note: note.consistent_from)

    def has(self, name: str) -> bool:
        """Say whether there is an image called ``name``."""
        return self._note_path(name).exists()

    def get(self, name: str) -> ImageNote:
        """Return the image called ``name``; UsageError names those that exist."""
        if not self.has(name):
            names = ", ".join(note.name for note in self.list()) or "none"
            raise UsageError(f"no image is called {name!r}; there are: {names}")
        return self._read(self._note_path(name))

    def drop(self, name: str) -> None:
        """Remove the note, then the clones: an interrupted drop leaves no image that is not one."""
        note = self.get(name)
        self._note_path(name).unlink()
        for volume in note.volumes:
            self._clones.drop(volume.path)

    def _source(self, volume: str) -> str:
        return naming.volume_path(self._site, self._group, volume)

    def _note_path(self, name: str) -> Path:
        return self._folder / f"{name}.json"

    def _read(self, path: Path) -> ImageNote:
        try:
            return decode_note(path.read_bytes())
        except (OSError, msgspec.MsgspecError) as error:
            raise DeviceUnusable(f"{path}: is not the note of an image: {error}") from error

    def _make_folder(self) -> None:
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise DeviceUnusable(f"{self._folder}: cannot be made: {error.strerror}") from error


def best_base(bases: Sequence[ImageNote], target: int, oldest: int) -> ImageNote:
    """Return the base from which position ``target`` is reached with the least to redo.

    ``oldest`` is the first position that the ring still holds. Refused says why none fits.
    """
    fitting = [b for b in bases if b.consistent_from <= target and b.restart.position >= oldest]
    if fitting:
        return max(fitting, key=lambda base: base.restart.position)
    reasons = []
    for base in bases:
        what = f"image {base.name}" if base.name else "the site's own volumes"
        if base.restart.position < oldest:
            reasons.append(
                f"{what}: needs the log from {base.restart.position} on, the ring begins "
                f"at {oldest}"
            )
        else:
            hint = "" if base.name else " (a paused restore can tell exactly)"
            reasons.append(f"{what}: may hold the log up to {base.consistent_from} already{hint}")
    raise Refused(
        f"no base leads to position {target}: {'; '.join(reasons) or 'there is none'}; keep images "
        "in time: replicatorctl image keep NAME"
    )


def _write_durably(path: Path, content: bytes) -> None:
    unfinished = path.with_suffix(".new")
    try:
        with unfinished.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        unfinished.rename(path)
        folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
        os.fsync(folder)
        os.close(folder)
    except OSError as error:
        raise DeviceUnusable(f"{path}: cannot be written: {error.strerror}") from error

"""replicatorctl restore to: the group's volumes as they were at a point, in fresh volumes."""

from __future__ import annotations

import argparse
import contextlib
import os
import stat
from pathlib import Path

from replicator.cli.base import applied_at_most, durable_end, expect_usable
from replicator.cli.node import Node, find_node, wants_json
from replicator.cli.output import format_count, format_time, print_json
from replicator.codec import naming
from replicator.codec.history import VolumeEntry
from replicator.codec.image_note import ImageNote
from replicator.codec.points import EXPECTED, parse_point
from replicator.errors import DeviceUnusable, NotBlank, Refused, UsageError
from replicator.group.image import Images, best_base
from replicator.group.restore_to import Restored, find_point, redo
from replicator.journal.survey import Survey
from replicator.seams.blockdevice import VolumeDevice
from replicator.seams.clone import FileClones
from replicator.seams.filedevice import CachedDevice, DirectDevice
from replicator.units import format_size

_PIECE = 4 << 20


def add_to_parser(
    inside: argparse._SubParsersAction[argparse.ArgumentParser],
) -> argparse.ArgumentParser:
    """Add ``to`` to the commands of ``restore``."""
    parser = inside.add_parser("to", help="bring fresh volumes to a point of the log")
    parser.add_argument("point", metavar="POINT", help=EXPECTED)
    parser.add_argument(
        "--volume",
        metavar="NAME=TARGET",
        action="append",
        required=True,
        help="restore volume NAME into TARGET: a file that is made, or a blank block device",
    )
    parser.add_argument("--image", metavar="NAME", help="the base, else the best that fits")
    parser.add_argument(
        "--overwrite",
        metavar="DEVICE",
        action="append",
        default=[],
        help="take a block device that is not blank; its exact name",
    )
    parser.set_defaults(run=run_restore_to)
    return parser


def run_restore_to(arguments: argparse.Namespace) -> int:
    """Restore; targets are complete if and only if this ends with 0."""
    node = find_node(arguments)
    try:
        wanted = parse_point(arguments.point)
    except ValueError as error:
        raise UsageError(f"POINT: {error}") from error
    targets = Targets(node, _named_targets(arguments.volume), set(arguments.overwrite))
    with contextlib.closing(DirectDevice(Path(node.journal_path), writable=False)) as device:
        survey = Survey(device)
        at = find_point(survey, wanted, durable_end(node, survey))
        base = _base(node, survey, device, arguments.image, at.position)
        try:
            targets.begin(base)
            if not base.name and applied_at_most(node, device) > at.position:
                raise Refused(
                    f"this site's restore passed position {at.position} while its volumes were "
                    "copied: replicatorctl restore pause, then again"
                )
            restored = redo(survey, base, at, targets.device_of)
            targets.finish()
        finally:
            targets.close()
    _tell(arguments, base, restored, targets)
    return 0


def _named_targets(texts: list[str]) -> dict[str, str]:
    named: dict[str, str] = {}
    for text in texts:
        name, equals, path = text.partition("=")
        if not equals or not name or not path:
            raise UsageError(f"--volume: expected NAME=TARGET, got {text!r}")
        if name in named or path in named.values():
            raise UsageError(f"--volume: {text!r} names a volume or a target twice")
        named[name] = path
    return named


def _base(
    node: Node, survey: Survey, device: DirectDevice, image: str | None, target: int
) -> ImageNote:
    """Return the base to begin from: the named image, or the best of all and the own volumes."""
    images = Images(node.site, node.group.name)
    first = survey.first()
    oldest = first.position if first is not None else survey.body.head.position
    if image is not None:
        return best_base([images.get(image)], target, oldest)
    bases = images.list()
    with contextlib.suppress(Refused):
        catalog = expect_usable(node, survey)
        applied = applied_at_most(node, device)
        bases.append(images.live(catalog, survey.body.restored, applied))
    return best_base(bases, target, oldest)


class Targets:
    """The volumes that are being made: files under an unfinished name, or block devices."""

    def __init__(self, node: Node, named: dict[str, str], overwrite: set[str]) -> None:
        self._node = node
        self.named = named
        self._overwrite = overwrite
        self._sources: dict[int, str] = {}
        self._open: dict[str, CachedDevice] = {}
        self.missing: set[str] = set(named)
        for path in named.values():
            self._expect_free(path)

    def begin(self, base: ImageNote) -> None:
        """Copy the content of ``base`` into the targets of the volumes that it has."""
        self._sources = {volume.id: volume.path for volume in base.volumes}
        for volume in base.volumes:
            self.device_of(VolumeEntry(volume.id, volume.name, volume.size_bytes))

    def device_of(self, entry: VolumeEntry) -> VolumeDevice | None:
        """Return the target of a volume, made or grown as ``entry`` says; None if not wanted."""
        path = self.named.get(entry.name)
        if path is None:
            return None
        self.missing.discard(entry.name)
        device = self._open.get(entry.name)
        if device is None:
            device = self._make(entry, path)
            self._open[entry.name] = device
        elif not _is_block(path):
            os.truncate(device.path, max(device.size_bytes, entry.size_bytes))
        if device.measure() < entry.size_bytes:
            raise DeviceUnusable(
                f"{path}: is {device.size_bytes} bytes, volume {entry.name} needs "
                f"{entry.size_bytes}"
            )
        return device

    def finish(self) -> None:
        """Give files their names; UsageError for a name that the group did not have there."""
        if self.missing:
            raise UsageError(
                f"the group had no volume {', '.join(sorted(self.missing))} at that point"
            )
        for name, device in self._open.items():
            if not _is_block(self.named[name]):
                os.rename(device.path, self.named[name])

    def close(self) -> None:
        """Close all; files that were not finished are removed."""
        for device in self._open.values():
            device.close()
        for name, path in self.named.items():
            if name in self._open and not _is_block(path):
                Path(f"{path}.unfinished").unlink(missing_ok=True)

    def _make(self, entry: VolumeEntry, path: str) -> CachedDevice:
        source = self._sources.get(entry.id)
        if _is_block(path):
            return self._fill_block(entry, path, source)
        unfinished = f"{path}.unfinished"
        Path(unfinished).unlink(missing_ok=True)
        if source is None:
            Path(unfinished).touch(mode=0o600)
        elif _is_block(source):
            Path(unfinished).touch(mode=0o600)
            with open(source, "rb") as old, open(unfinished, "r+b") as new:
                _copy(old.fileno(), new.fileno(), entry.size_bytes)
        else:
            FileClones().clone(source, unfinished)
        os.truncate(unfinished, entry.size_bytes)
        return CachedDevice(Path(unfinished))

    def _fill_block(self, entry: VolumeEntry, path: str, source: str | None) -> CachedDevice:
        device = CachedDevice(Path(path))
        try:
            if path not in self._overwrite:
                _expect_blank(device)
            device.zero(0, min(device.size_bytes, entry.size_bytes))
            if source is not None:
                with open(source, "rb") as old:
                    _fill(old.fileno(), device, min(entry.size_bytes, device.size_bytes))
        except BaseException:
            device.close()
            raise
        return device

    def _expect_free(self, path: str) -> None:
        """Refuse what belongs to a group here, and files that exist."""
        here = os.path.realpath(path)
        for group in self._node.topology.groups_at(self._node.site.name):
            own = [naming.journal_path(self._node.site, group.name)]
            own += [naming.volume_path(self._node.site, group.name, v.name) for v in group.volumes]
            if here in map(os.path.realpath, own):
                raise Refused(f"{path}: belongs to group {group.name}; name a fresh target")
        if os.path.exists(path) and not _is_block(path):
            raise NotBlank(f"{path}: exists; name a file that does not")


def _is_block(path: str) -> bool:
    try:
        return stat.S_ISBLK(os.stat(path).st_mode)
    except OSError:
        return False


def _expect_blank(device: CachedDevice) -> None:
    edge = min(1 << 20, device.size_bytes)
    for start in {0, device.size_bytes - edge}:
        content = memoryview(bytearray(edge))
        device.read_into(start, [content])
        if bytes(content).count(0) != edge:
            raise NotBlank(
                f"{device.name}: not blank; only --overwrite {device.name} takes it all the same"
            )


def _copy(source: int, target: int, length: int) -> None:
    for at in range(0, length, _PIECE):
        piece = os.pread(source, min(_PIECE, length - at), at)
        if any(piece):
            os.pwrite(target, piece, at)


def _fill(source: int, device: CachedDevice, length: int) -> None:
    for at in range(0, length, _PIECE):
        piece = os.pread(source, min(_PIECE, length - at), at)
        if any(piece):
            device.write_from(at, [piece])


def _tell(
    arguments: argparse.Namespace, base: ImageNote, restored: Restored, targets: Targets
) -> None:
    at = restored.at
    if wants_json(arguments):
        print_json(
            {
                "schema": 1,
                "position": at.position,
                "digest": at.digest.hex(),
                "time_ns": at.time_ns,
                "base": base.name or "volumes",
                "records": restored.records,
                "redone_bytes": restored.redone_bytes,
                "volumes": targets.named,
            }
        )
        return
    source = f"image {base.name}" if base.name else "the site's own volumes"
    print(
        f"restored to position {at.position} ({format_time(at.time_ns)}, primary's clock) from "
        f"{source}: {format_count(restored.records, 'record')}, "
        f"{format_size(restored.redone_bytes)} of the log redone"
    )
    for name, path in targets.named.items():
        print(f"  {name}: {path}")

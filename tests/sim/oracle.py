"""The oracle: what the group's volumes may hold, judged from outside.

It keeps the log of records in the order in which the primary journaled them (told by a tap on
the primary's journal device, checked against what the hosts asked for), which of them were
answered, and a hash of the volumes' state after each prefix. Any image of any site can then be
judged alone: it must equal the state after exactly prefix m, the same m for all volumes, and m
must be at least what was promised.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from xxhash import xxh3_64_intdigest

from replicator.model import BLOCK


class BrokenPromise(AssertionError):
    """An image, a position or an answer that no correct group could show."""


@dataclass(slots=True)
class Asked:
    """One change that a host asked for: its stamp, and what became of it."""

    stamp: int
    volume_id: int
    offset: int
    content: bytes
    answered: bool = False
    failed: bool = False
    journaled: int = 0
    """How many prefixes of the log contain it: 0 or the index of its record plus one."""


@dataclass(slots=True)
class _Entry:
    asked: Asked | None
    volume_id: int
    offset: int
    before: bytes
    content: bytes


class Oracle:
    """The group's history as a list of records, and the hash of every prefix of it."""

    def __init__(self, volumes: Mapping[int, int]) -> None:
        self.volumes = dict(volumes)
        self.image = {volume_id: bytearray(size) for volume_id, size in self.volumes.items()}
        self._entries: list[_Entry] = []
        self._block_hashes = {
            (volume_id, block): _block_hash(volume_id, block, bytes(BLOCK))
            for volume_id, size in self.volumes.items()
            for block in range(size // BLOCK)
        }
        state = 0
        for value in self._block_hashes.values():
            state ^= value
        self._states = [state]
        self._prefixes: dict[int, list[int]] = {state: [0]}
        self._ends = {0: 0}
        """Log position of a batch's end: length of the prefix that ends there."""
        self.promised = 0
        """Length of the shortest prefix that holds every answered write."""

    @property
    def length(self) -> int:
        """Number of records in the log."""
        return len(self._entries)

    # -- what the primary journals ------------------------------------------------------------

    def append(self, asked: Asked | None, volume_id: int, offset: int, content: bytes) -> None:
        """Add one journaled change of a volume; the image and the state follow."""
        image = self.image[volume_id]
        end = offset + len(content)
        self._entries.append(_Entry(asked, volume_id, offset, bytes(image[offset:end]), content))
        if asked is not None:
            if asked.journaled:
                raise BrokenPromise(f"write {asked.stamp} was journaled twice")
            asked.journaled = len(self._entries)
        image[offset:end] = content
        self._states.append(self._rehash(volume_id, offset, end))
        self._prefixes.setdefault(self._states[-1], []).append(len(self._entries))

    def end_batch(self, position: int) -> None:
        """Note that a batch ends at ``position`` of the log."""
        self._ends[position] = len(self._entries)

    def _rehash(self, volume_id: int, offset: int, end: int) -> int:
        state = self._states[-1]
        image = self.image[volume_id]
        for block in range(offset // BLOCK, -(-end // BLOCK)):
            fresh = _block_hash(volume_id, block, image[block * BLOCK : (block + 1) * BLOCK])
            state ^= self._block_hashes[volume_id, block] ^ fresh
            self._block_hashes[volume_id, block] = fresh
        return state

    def truncate(self, position: int) -> None:
        """Forget what lay above ``position``, which a recovered primary says is its head."""
        if position not in self._ends:
            raise BrokenPromise(f"head {position} after recovery is not the end of any batch")
        length = self._ends[position]
        if length < self.promised:
            raise BrokenPromise(
                f"answered writes are gone: {self.promised} records were promised, "
                f"{length} are left at head {position}"
            )
        while len(self._entries) > length:
            self._drop_last()
        self._ends = {end: count for end, count in self._ends.items() if end <= position}

    def _drop_last(self) -> None:
        entry = self._entries.pop()
        if entry.asked is not None:
            entry.asked.journaled = 0
        end = entry.offset + len(entry.content)
        self.image[entry.volume_id][entry.offset : end] = entry.before
        state = self._rehash(entry.volume_id, entry.offset, end)
        self._prefixes[self._states.pop()].pop()
        assert state == self._states[-1]

    # -- what hosts were told -----------------------------------------------------------------

    def answer(self, asked: Asked) -> None:
        """Note that a write was answered as done: it must be in the log, once."""
        if asked.answered or asked.failed:
            raise BrokenPromise(f"write {asked.stamp} was answered twice")
        if not asked.journaled:
            raise BrokenPromise(f"write {asked.stamp} was answered but is in no journal")
        asked.answered = True
        self.promised = max(self.promised, asked.journaled)

    # -- judging ------------------------------------------------------------------------------

    def prefix_at(self, position: int) -> int:
        """Return how many records the log holds below ``position``, the end of a batch."""
        if position not in self._ends:
            raise BrokenPromise(f"position {position} is not the end of any batch")
        return self._ends[position]

    def judge(self, images: Mapping[int, bytes | bytearray], promised: int, who: str) -> int:
        """Return the longest prefix that ``images`` equal; raise if there is none long enough."""
        state = 0
        for volume_id, size in self.volumes.items():
            image = memoryview(images[volume_id])
            for block in range(size // BLOCK):
                state ^= _block_hash(volume_id, block, image[block * BLOCK : (block + 1) * BLOCK])
        prefixes = self._prefixes.get(state)
        if not prefixes:
            raise BrokenPromise(f"{who}: volumes equal no prefix; {self._nearest(images)}")
        if prefixes[-1] < promised:
            raise BrokenPromise(
                f"{who}: volumes equal the first {prefixes[-1]} records, {promised} were promised"
            )
        return prefixes[-1]

    def judge_at(self, images: Mapping[int, bytes | bytearray], position: int, who: str) -> None:
        """Raise unless ``images`` equal the state after exactly the records below ``position``."""
        expected = self.prefix_at(position)
        state = self._states[expected]
        if expected not in self._prefixes[state]:
            raise AssertionError("the oracle lost a prefix")
        if len(images) < len(self.volumes):  # removed ones: nothing is promised of them
            images = {**self.image_at(expected), **images}
        found = self.judge(images, 0, who)
        if self._states[found] != state:
            raise BrokenPromise(
                f"{who}: volumes equal the first {found} records, not the {expected} "
                f"below position {position}"
            )

    def image_at(self, length: int) -> dict[int, bytearray]:
        """Return the volumes after the first ``length`` records (slow; for reports)."""
        images = {volume_id: bytearray(image) for volume_id, image in self.image.items()}
        for entry in reversed(self._entries[length:]):
            end = entry.offset + len(entry.content)
            images[entry.volume_id][entry.offset : end] = entry.before
        return images

    def _nearest(self, images: Mapping[int, bytes | bytearray]) -> str:
        best = (1 << 60, 0, "")
        for length in range(max(0, len(self._entries) - 64), len(self._entries) + 1):
            expected = self.image_at(length)
            wrong = [
                f"{volume_id}:{block}"
                for volume_id, size in self.volumes.items()
                for block in range(size // BLOCK)
                if expected[volume_id][block * BLOCK : (block + 1) * BLOCK]
                != images[volume_id][block * BLOCK : (block + 1) * BLOCK]
            ]
            best = min(best, (len(wrong), length, ", ".join(wrong[:6])))
        return (
            f"nearest is prefix {best[1]} of {len(self._entries)}, "
            f"{best[0]} blocks differ (volume:block {best[2]})"
        )


def _block_hash(volume_id: int, block: int, content: bytes | bytearray | memoryview) -> int:
    return xxh3_64_intdigest(content, seed=volume_id << 32 | block)

"""The judge of stamped writes must itself catch what it is there for."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.embedded.stamped import BLOCK, Stamped, StampedWriter, stamp

BLOCKS = 8


class Images:
    """Two images in memory that are written to files to be judged."""

    def __init__(self, folder: Path) -> None:
        self.writer = StampedWriter(folder / "none", {"one": 32768, "two": 32768}, seed=1)
        self.paths = {name: folder / name for name in ("one", "two")}
        self.content = {name: bytearray(BLOCKS * BLOCK) for name in self.paths}
        self._sequence = 0

    def send(self, volume: str, block: int, *, answered: bool, zero: bool = False) -> int:
        """Note a write in the history, as if it had been sent."""
        self._sequence += 1
        other = self.writer.histories["two" if volume == "one" else "one"]
        history = self.writer.histories[volume]
        history.writes.append(Stamped(self._sequence, block, 1, zero, other.answered))
        if answered:
            history.answered = len(history.writes)
        return self._sequence

    def put(self, volume: str, block: int, sequence: int) -> None:
        place = slice(block * BLOCK, (block + 1) * BLOCK)
        self.content[volume][place] = stamp(self.writer.run, volume, block, sequence)

    def judge(self, *, acknowledged: bool = True) -> dict[str, int]:
        for name, path in self.paths.items():
            path.write_bytes(self.content[name])
        return self.writer.judge(self.paths, acknowledged=acknowledged)


def test_judge_prefix_with_an_unknown_tail_is_accepted(tmp_path: Path) -> None:
    images = Images(tmp_path)
    images.put("one", 0, images.send("one", 0, answered=True))
    images.put("one", 1, images.send("one", 1, answered=False))
    images.send("one", 2, answered=False)
    assert images.judge() == {"one": 2, "two": 0}


def test_judge_missing_answered_write_is_caught(tmp_path: Path) -> None:
    images = Images(tmp_path)
    images.put("one", 0, images.send("one", 0, answered=True))
    images.send("one", 1, answered=True)
    with pytest.raises(AssertionError, match="2 writes were answered"):
        images.judge()


def test_judge_hole_in_the_sequence_is_caught(tmp_path: Path) -> None:
    images = Images(tmp_path)
    images.send("one", 0, answered=False)
    images.put("one", 1, images.send("one", 1, answered=False))
    with pytest.raises(AssertionError, match="no prefix"):
        images.judge()


def test_judge_volumes_at_different_points_are_caught(tmp_path: Path) -> None:
    images = Images(tmp_path)
    images.send("one", 0, answered=True)
    images.put("two", 0, images.send("two", 0, answered=False))
    with pytest.raises(AssertionError, match="different points"):
        images.judge(acknowledged=False)


def test_judge_torn_block_is_caught(tmp_path: Path) -> None:
    images = Images(tmp_path)
    images.put("one", 0, images.send("one", 0, answered=True))
    images.content["one"][2048:4096] = bytes(2048)
    with pytest.raises(AssertionError, match="torn or foreign"):
        images.judge()


def test_judge_misplaced_block_is_caught(tmp_path: Path) -> None:
    images = Images(tmp_path)
    images.put("one", 0, images.send("one", 0, answered=True))
    images.content["one"][4096:8192] = images.content["one"][:4096]
    with pytest.raises(AssertionError, match="torn or foreign"):
        images.judge()


def test_judge_zeros_count_as_writes(tmp_path: Path) -> None:
    images = Images(tmp_path)
    images.put("one", 0, images.send("one", 0, answered=True))
    images.send("one", 0, answered=True, zero=True)
    with pytest.raises(AssertionError, match="2 writes were answered"):
        images.judge()
    images.content["one"][:4096] = bytes(4096)
    assert images.judge()["one"] == 2

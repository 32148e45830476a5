"""What the demo does before it starts anything."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from replicator.embedded import clients
from replicator.embedded.demo import collect_tree
from replicator.embedded.lab import EmbeddedLab
from replicator.errors import MissingPackage, NotBlank


def test_require_programs_missing_names_one_command(monkeypatch: pytest.MonkeyPatch) -> None:
    present = {"nbdcopy", "mke2fs", "e2fsck"}
    monkeypatch.setattr(shutil, "which", lambda name: name if name in present else None)
    with pytest.raises(MissingPackage, match=r"as root: apt-get install .* fio qemu-utils$"):
        clients.require_programs()


def test_collect_tree_stops_at_its_limit_and_skips_links(tmp_path: Path) -> None:
    source = tmp_path / "source"
    (source / "deep").mkdir(parents=True)
    for number in range(10):
        (source / "deep" / f"{number}").write_bytes(bytes(1000))
    (source / "link").symlink_to(source / "deep" / "1")
    (source / "large").write_bytes(bytes(100_000))
    tree = tmp_path / "tree"
    assert collect_tree(tree, [source], 5_500) == 5
    assert sum(path.stat().st_size for path in tree.rglob("*") if path.is_file()) == 5_000
    assert not (tree / "source" / "link").exists()


def test_embedded_lab_folder_that_is_no_lab_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("mine")
    with pytest.raises(NotBlank, match="no lab"):
        EmbeddedLab(tmp_path).make()
    assert (tmp_path / "precious").read_text() == "mine"

"""The embedded lab as a fixture: made in a temporary folder, never left running."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from replicator.embedded.lab import EmbeddedLab, LabPlan

MakeLab = Callable[[LabPlan], EmbeddedLab]


@pytest.fixture
def make_lab(tmp_path: Path) -> Iterator[MakeLab]:
    """Return a function that makes a lab (files and journals; nothing runs yet)."""
    labs: list[EmbeddedLab] = []

    def make(plan: LabPlan) -> EmbeddedLab:
        lab = EmbeddedLab(tmp_path / f"lab{len(labs)}", plan)
        labs.append(lab)
        lab.make()
        return lab

    yield make
    for lab in labs:
        lab.kill_all()

"""The protocol as it stands has one writer; without any one of its rules it has two."""

from __future__ import annotations

from dataclasses import fields

import pytest

from tests import tally
from tests.model.one_writer import Rules, search


def test_one_writer_in_every_unforced_history() -> None:
    found = search(Rules())
    tally.count("model states, one writer", found.states)
    assert found.trace == ()
    assert found.states > 10_000, "the search is too small to say anything"


@pytest.mark.parametrize("rule", [field.name for field in fields(Rules)])
def test_one_writer_without_a_rule_there_are_two(rule: str) -> None:
    found = search(Rules(**{rule: False}))
    assert found.trace, f"without {rule} the search finds nothing wrong: it checks nothing"
    tally.count("model rules that are needed", 1)

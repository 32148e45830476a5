"""Whatever is in the topology file, the answer is a Topology or a ConfigError with places."""

from __future__ import annotations

import copy
from typing import Any

import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from replicator.codec.topology import Topology
from replicator.codec.topology_file import parse_topology
from replicator.errors import ConfigError
from tests.unit.topologies import GOOD

_SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=30),
    st.sampled_from(["a", "b", "c", "orders", "db", "1GiB", "5s", "pull", "records", "lvm:x"]),
)
_VALUES = st.recursive(
    _SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(_SCALARS, inner, max_size=4),
    max_leaves=12,
)


def _judge(text: str) -> None:
    try:
        topology = parse_topology(text, "fuzzed.yml")
    except ConfigError as refusal:
        assert refusal.violations
        assert all(": " in violation for violation in refusal.violations)
        assert "\n" not in str(refusal)
    else:
        assert isinstance(topology, Topology)
        for group in topology.groups:
            assert group.primary.upstream is None


def _places(value: Any, place: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    if not isinstance(value, dict):
        return [place]
    inner = [found for key, child in value.items() for found in _places(child, (*place, key))]
    return [place, *inner]


@settings(max_examples=60, deadline=None)
@given(text=st.text(max_size=400))
def test_topology_from_any_text_is_refused_or_sound(text: str) -> None:
    _judge(text)


@settings(max_examples=120, deadline=None)
@given(data=st.data())
def test_topology_with_any_value_anywhere_is_refused_or_sound(data: st.DataObject) -> None:
    content = copy.deepcopy(yaml.safe_load(GOOD))
    place = data.draw(st.sampled_from(_places(content)))
    value = data.draw(_VALUES)
    if not place:
        content = value
    else:
        section = content
        for key in place[:-1]:
            section = section[key]
        section[place[-1]] = value
    _judge(yaml.safe_dump(content))


@settings(max_examples=120, deadline=None)
@given(data=st.data())
def test_topology_with_characters_changed_is_refused_or_sound(data: st.DataObject) -> None:
    text = list(GOOD)
    for _ in range(data.draw(st.integers(1, 5))):
        at = data.draw(st.integers(0, len(text) - 1))
        text[at] = data.draw(st.characters())
    _judge("".join(text))

"""YAML text to plain values, refusing what would be silently misread.

Plain ``yaml.safe_load`` keeps the last of two equal keys and expands aliases without a bound;
here both are violations, with their line, and so is text that is no YAML at all.
"""

from __future__ import annotations

from collections.abc import Iterator

import yaml

from replicator.codec.section import place_of

MAXIMUM_LENGTH = 1 << 20
"""Longest text accepted, characters; a topology of hundreds of volumes is a tenth of it."""

MAXIMUM_DEPTH = 16
"""Deepest nesting accepted (a topology has 7); the parser's time is quadratic in it."""


def parse_yaml(text: str) -> tuple[object, list[str]]:
    """Return the value of ``text`` and the violations found; the value is None if unreadable."""
    if len(text) > MAXIMUM_LENGTH:
        return None, [f"file: expected at most {MAXIMUM_LENGTH} characters, got {len(text)}"]
    try:
        loader = yaml.SafeLoader(text)
        try:
            if violations := [*_unsupported(text)]:
                return None, violations
            node = loader.get_single_node()
            if node is None:
                return None, []
            violations = [*_duplicates(node, "")]
            return loader.construct_document(node), violations
        finally:
            loader.dispose()
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        problem = " ".join(filter(None, (error.problem, error.context)))
        return None, [f"line {line}: not valid YAML: {problem}"]
    except (yaml.YAMLError, ValueError) as error:
        return None, [f"file: not valid YAML: {' '.join(str(error).split())}"]


def _unsupported(text: str) -> Iterator[str]:
    """Yield what the event stream shows before anything is built; stops at deep nesting."""
    depth = 0
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        if isinstance(event, yaml.AliasEvent):
            yield f"line {_line(event)}: aliases (*{event.anchor}) are not supported"
        depth += isinstance(event, yaml.CollectionStartEvent)
        depth -= isinstance(event, yaml.CollectionEndEvent)
        if depth > MAXIMUM_DEPTH:
            yield f"line {_line(event)}: nested deeper than {MAXIMUM_DEPTH} levels"
            return


def _duplicates(node: yaml.Node, place: str) -> Iterator[str]:
    if isinstance(node, yaml.SequenceNode):
        for index, child in enumerate(node.value):
            yield from _duplicates(child, f"{place}[{index}]")
    if not isinstance(node, yaml.MappingNode):
        return
    seen: dict[str, int] = {}
    for key, child in node.value:
        line = _line(key)
        name = key.value if isinstance(key, yaml.ScalarNode) else ""
        inside = f"{place}.{place_of(name)}" if place else place_of(name)
        if isinstance(key, yaml.ScalarNode) and name in seen:
            yield f"{inside}: duplicate key on line {line}, first given on line {seen[name]}"
        seen.setdefault(name, line)
        yield from _duplicates(child, inside)


def _line(part: yaml.Event | yaml.Node) -> int:
    return part.start_mark.line + 1 if part.start_mark else 1

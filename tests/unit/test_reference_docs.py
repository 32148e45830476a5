"""The reference pages name what there is: every exit code, every command, every topology key."""

from __future__ import annotations

import argparse
import re
from pathlib import Path

import pytest

from replicator import errors
from replicator.cli.main import build_parser
from replicator.codec.topology_file import parse_topology

REFERENCE = Path(__file__).parents[2] / "docs/reference"


def _error_classes() -> dict[str, int]:
    found = {}
    for name, value in vars(errors).items():
        if isinstance(value, type) and issubclass(value, errors.TowlineError):
            found[name] = value.exit_code
    return found


def _commands(parser: argparse.ArgumentParser, path: str) -> list[str]:
    subparsers = [a for a in parser._actions if isinstance(a, argparse._SubParsersAction)]
    if not subparsers:
        return [path]
    return [
        command
        for name, child in subparsers[0].choices.items()
        for command in _commands(child, f"{path} {name}")
    ]


@pytest.mark.parametrize(("name", "code"), sorted(_error_classes().items()))
def test_exit_codes_page_has_each_error_class_with_its_code(name: str, code: int) -> None:
    text = (REFERENCE / "exit-codes.md").read_text()
    assert re.search(rf"^\| {code} \|.*`{name}`", text, re.MULTILINE), f"{name} = {code}"


@pytest.mark.parametrize("command", _commands(build_parser(), "replicatorctl"))
def test_commands_page_has_a_section_for_each_command(command: str) -> None:
    assert f"\n## `{command}`\n" in (REFERENCE / "commands.md").read_text()


def test_topology_page_example_is_a_good_topology() -> None:
    text = (REFERENCE / "topology.md").read_text()
    example = re.search(r"```yaml\n(.*?)```", text, re.DOTALL)
    assert example
    assert parse_topology(example[1]).group("orders").primary.name == "a"

"""Search the protocol: ``python -m tests.model``, or without a rule: ``... second_look``."""

from __future__ import annotations

import argparse
from dataclasses import fields

from tests.model.one_writer import Rules, search


def main() -> int:
    """Search and print; 1 if two sites can answer hosts."""
    parser = argparse.ArgumentParser(prog="python -m tests.model", description=__doc__)
    rules = [field.name for field in fields(Rules)]
    parser.add_argument("without", nargs="*", choices=[*rules, []], help="rules to leave out")
    asked = parser.parse_args()
    found = search(Rules(**dict.fromkeys(asked.without, False)))
    verdict = f"two writers: {' | '.join(found.trace)}" if found.trace else "one writer in each"
    print(f"{found.states} states, {verdict}")
    return 1 if found.trace else 0


if __name__ == "__main__":
    raise SystemExit(main())

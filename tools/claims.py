"""Whether the claims are shown: each row of docs/claims.md names tests, and each of them passes.

``python -m tools.claims`` runs every named test that needs no VM (with the counts that the
environment gives, see docs/testing.md), collects those that do, or runs them too when ``--vm``
says that the lab is up. It ends with 1 if a row names no test, names one that does not exist, or
one that failed or was skipped.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal
from xml.etree import ElementTree

ROOT = Path(__file__).parents[1]
CLAIMS = 39
VM_FOLDER = "tests/infra/"
_ROW = re.compile(r"\| (\d+) \| (.+?) \| (.*?) \| (.+?) \|")
_TEST = re.compile(r"`(tests/[\w/]+\.py::\w+)`")

Outcome = Literal["passed", "collected", "failed", "skipped", "missing"]
_BAD: tuple[Outcome, ...] = ("failed", "skipped", "missing")


@dataclass(frozen=True, slots=True)
class Claim:
    """One row: its number, what implements it, and the tests that show it."""

    number: int
    implemented: str
    shown: str
    tests: tuple[str, ...] = field(default=())


def read_claims(text: str) -> list[Claim]:
    """Return the rows of the table in ``text``, in its order."""
    rows = (_ROW.fullmatch(line) for line in text.splitlines() if line.startswith("| "))
    return [Claim(int(row[1]), row[3], row[4], tuple(_TEST.findall(row[4]))) for row in rows if row]


def judge(claims: Sequence[Claim], outcomes: Mapping[str, Outcome]) -> list[str]:
    """Return why the claims are not shown, a line a reason; nothing if they are."""
    found = {claim.number for claim in claims}
    reasons = [f"claim {n}: no row" for n in range(1, CLAIMS + 1) if n not in found]
    for claim in claims:
        if not claim.tests:
            reasons.append(f"claim {claim.number}: names no test ({claim.shown})")
        elif not any(outcomes.get(test) == "passed" for test in claim.tests):
            reasons.append(f"claim {claim.number}: no test of it has passed")
        for test in claim.tests:
            outcome = outcomes.get(test, "missing")
            if outcome in _BAD:
                reasons.append(f"claim {claim.number}: {test} {outcome}")
    return reasons


def outcomes_of(report: str) -> dict[str, Outcome]:
    """Return what a JUnit report of pytest says, by test; the worst of its parameters."""
    found: dict[str, Outcome] = {}
    for case in ElementTree.fromstring(report).iter("testcase"):
        module = case.attrib["classname"].replace(".", "/") + ".py"
        test = f"{module}::{case.attrib['name'].partition('[')[0]}"
        outcome: Outcome = "passed"
        if case.find("skipped") is not None:
            outcome = "skipped"
        if case.find("failure") is not None or case.find("error") is not None:
            outcome = "failed"
        if found.get(test) != "failed" and (outcome != "passed" or test not in found):
            found[test] = outcome
    return found


def run(tests: Iterable[str], report: Path) -> dict[str, Outcome]:
    """Run ``tests`` and return how each ended."""
    named = sorted(set(tests))
    if not named:
        return {}
    report.parent.mkdir(parents=True, exist_ok=True)
    report.unlink(missing_ok=True)
    command = [sys.executable, "-m", "pytest", "-q", f"--junitxml={report}", *named]
    subprocess.run(command, cwd=ROOT, check=False)
    return outcomes_of(report.read_text()) if report.exists() else {}


def collect(tests: Iterable[str]) -> dict[str, Outcome]:
    """Return which of ``tests`` pytest finds, without running them."""
    named = sorted(set(tests))
    if not named:
        return {}
    files = sorted({test.partition("::")[0] for test in named})
    command = [sys.executable, "-m", "pytest", "-o", "addopts=-q", "--collect-only", *files]
    listed = subprocess.run(command, cwd=ROOT, check=False, capture_output=True, text=True).stdout
    there = {line.partition("[")[0] for line in listed.splitlines()}
    return {test: "collected" for test in named if test in there}


def main() -> int:
    """Run, print what is not shown, and say how many claims are."""
    parser = argparse.ArgumentParser(prog="tools.claims", description=__doc__)
    parser.add_argument("--vm", action="store_true", help="run the tests of the VM lab, too")
    arguments = parser.parse_args()
    claims = read_claims((ROOT / "docs/claims.md").read_text())
    tests = [test for claim in claims for test in claim.tests]
    in_vms = [test for test in tests if test.startswith(VM_FOLDER)]
    here = [test for test in tests if not test.startswith(VM_FOLDER)]
    outcomes = run(here, ROOT / "build/claims.xml")
    outcomes |= run(in_vms, ROOT / "build/claims-vm.xml") if arguments.vm else collect(in_vms)
    reasons = judge(claims, outcomes)
    for reason in reasons:
        print(reason)
    bad = {reason.split()[1].rstrip(":") for reason in reasons}
    count = sum(outcome == "passed" for outcome in outcomes.values())
    seen = sum(outcome == "collected" for outcome in outcomes.values())
    print(
        f"{CLAIMS - len(bad)} of {CLAIMS} claims shown: {count} tests passed"
        + (f", {seen} of the VM lab were only collected" if seen else "")
    )
    return 1 if reasons else 0


if __name__ == "__main__":
    sys.exit(main())

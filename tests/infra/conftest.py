"""The lab's fixtures. All tests here are marked ``vm``; one that fails saves evidence first."""

from __future__ import annotations

import os
import secrets
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest

from tests.infra.lab import PLACE, PROJECT, Lab, LabMissing, Stamps
from tools.lab import evidence
from tools.lab.places import DEFAULT_TOPOLOGY

MOST_EVIDENCE = 2
"""So many failures of one run are collected; later ones seldom tell more."""

_collected: list[Path] = []
_noted: list[str] = []


def pytest_configure(config: pytest.Config) -> None:
    """Name the mark of the tests that disturb (molecule runs them as its side effect)."""
    config.addinivalue_line("markers", "side_effect: disturbs the lab, and puts it right again")
    config.addinivalue_line("markers", "conformance: takes minutes and has a scenario of its own")
    config.addinivalue_line("markers", "topology(name, ...): runs on these of the lab's topologies")
    config.addinivalue_line("markers", "own_machines: takes the lab's provisioning away, and back")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Mark what is in this folder; leave out what wants another topology than the lab has."""
    here = Path(__file__).parent
    present = os.environ.get("TOWLINE_LAB_TOPOLOGY") or DEFAULT_TOPOLOGY
    elsewhere = []
    for item in items:
        if item.path.is_relative_to(here):
            item.add_marker(pytest.mark.vm)
            wanted = item.get_closest_marker("topology")
            if present not in (wanted.args if wanted else (DEFAULT_TOPOLOGY,)):
                elsewhere.append(item)
    if elsewhere:
        config.hook.pytest_deselected(items=elsewhere)
        items[:] = [item for item in items if item not in elsewhere]


@pytest.fixture(scope="session")
def lab() -> Iterator[Lab]:
    """The lab that is up; ends the run with one line if there is none."""
    try:
        opened = Lab.open()
    except LabMissing as error:
        pytest.exit(str(error), returncode=1)
    for node in opened.nodes.values():
        node.bring_scripts()
    yield opened
    for node in opened.nodes.values():
        node.run(f"rm -rf {PLACE} /run/towline-test-*")


@pytest.fixture
def stamps(lab: Lab) -> Stamps:
    """A new run of stamped writes on the volume that no host mounts."""
    return Stamps(lab, secrets.token_hex(4), "scratch")


@pytest.fixture
def note(request: pytest.FixtureRequest) -> Iterator[list[str]]:
    """Figures worth knowing; they are printed at the end of the run."""
    lines: list[str] = []
    yield lines
    _noted.extend(f"{request.node.name}: {line}" for line in lines)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Collect evidence before a failed test's fixtures put things right."""
    report = yield
    opened = getattr(item, "funcargs", {}).get("lab")
    if report.failed and opened is not None and len(_collected) < MOST_EVIDENCE:
        _collected.append(evidence.collect(PROJECT, f"{item.nodeid}\n{report.longreprtext}"))
    return report


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print figures and where evidence is."""
    for title, lines in (("figures", _noted), ("evidence", [str(path) for path in _collected])):
        if lines:
            terminalreporter.section(title)
            for line in lines:
                terminalreporter.write_line(line)


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """Take the scenario's mark away: it ran to its end, or its evidence is already saved."""
    side_effects_only = session.config.option.markexpr.startswith("side_effect")
    if _collected or (exitstatus == pytest.ExitCode.OK and not side_effects_only):
        Lab.scenario_mark().unlink(missing_ok=True)

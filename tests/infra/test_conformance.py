"""libiscsi's conformance suite against the TCMU LUN; every failure is named with its reason."""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest

from replicator.codec import naming
from tests import tally
from tests.infra.lab import PROJECT, PYTHON, Lab

ALLOWED = PROJECT / "docs/reference/iscsi-conformance.md"
RESULT = re.compile(r"^\s*Test:\s+(\S+)\s*\.\.\.(.*?)(passed|FAILED)\s*$", re.MULTILINE | re.DOTALL)
SUITE_SECONDS = 900


def allowed_failures(text: str) -> list[re.Pattern[str]]:
    """Return what rows ``| fail, not ours | Suite.Test or Suite (all) | why |`` allow."""
    rows = re.findall(r"^\| fail, [^|]*\| ([A-Za-z0-9_.]+)( \(all\))? \| \S", text, re.MULTILINE)
    return [re.compile(re.escape(name) + (r"\..*" if whole else "")) for name, whole in rows]


def results(output: str) -> dict[str, str]:
    """Return ``Suite.Test`` to passed, skipped or FAILED."""
    found = {}
    suites = re.split(r"^Suite:\s+(\S+)\s*$", output, flags=re.MULTILINE)
    for suite, body in zip(suites[1::2], suites[2::2], strict=True):
        for name, between, verdict in RESULT.findall(body):
            state = "skipped" if verdict == "passed" and "SKIPPED" in between else verdict
            found[f"{suite}.{name}"] = state
    return found


@pytest.fixture
def suite_url(lab: Lab) -> Iterator[str]:
    """ACLs for the suite's two initiators, on the scratch volume alone; taken away at the end."""
    primary = lab[lab.group.primary.name]
    password = secrets.token_hex(7)
    lun = naming.data_lun(lab.group, "scratch")
    words = f"{lab.data_target()} {lun} {password}"
    primary.ok(f"{PYTHON} /usr/local/lib/towline-tests/conformance_acl.py {words}")
    address = lab.address(primary.name)
    yield f"iscsi://conformance%{password}@{address}/{lab.data_target()}/{lun}"
    primary.ok("replicatorctl target apply")
    assert "libiscsi" not in primary.ok(
        f"ls /sys/kernel/config/target/iscsi/{lab.data_target()}/tpgt_1/acls"
    )


@pytest.mark.conformance
def test_conformance_every_failure_is_named_with_its_reason(
    lab: Lab, suite_url: str, note: list[str]
) -> None:
    # The same unit twice: two sessions, which the MultipathIO tests take for two paths.
    command = f"iscsi-test-cu --dataloss --verbose --test=ALL '{suite_url}' '{suite_url}' 2>&1"
    output = lab.app.run(command, SUITE_SECONDS).stdout
    _keep(lab, output.replace(suite_url, "URL"))
    found = results(output)
    failed = {name for name, verdict in found.items() if verdict == "FAILED"}
    counts = {state: list(found.values()).count(state) for state in ("passed", "skipped", "FAILED")}
    note.append(f"iscsi-test-cu: {counts}")
    assert len(found) > 220, f"the suite ended after {len(found)} tests: {output[-400:]}"
    allowed = allowed_failures(ALLOWED.read_text())
    unnamed = {name for name in failed if not any(each.fullmatch(name) for each in allowed)}
    assert not unnamed, f"not named in {ALLOWED.name}: {sorted(unnamed)}"
    tally.count("F39")
    lab.assert_same_everywhere(["scratch"])


def _keep(lab: Lab, output: str) -> None:
    Path(lab.places.state / "iscsi-test-cu.txt").write_text(output)

"""What the roles leave on the machines, and that they find nothing to do a second time."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

from tests.infra.lab import PROJECT, Lab

RECAP = re.compile(
    r"^(\S+)\s+: ok=\d+\s+changed=(\d+)\s+unreachable=(\d+)\s+failed=(\d+)", re.MULTILINE
)


@pytest.mark.conformance
def test_provisioning_in_check_mode_finds_nothing_to_change(lab: Lab) -> None:
    """``--check --diff`` on a provisioned lab reports changed=0 on every machine."""
    lab.converge()
    command = [
        sys.executable,
        "-m",
        "ansible",
        "playbook",
        "playbooks/site.yml",
        "--check",
        "--diff",
    ]
    outcome = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, timeout=900)
    rows = RECAP.findall(outcome.stdout)
    assert outcome.returncode == 0, outcome.stdout[-3000:] + outcome.stderr[-1000:]
    assert {name for name, *_ in rows} >= set(lab.nodes)
    assert [row for row in rows if row[1:] != ("0", "0", "0")] == []


def test_provisioning_secrets_and_records_are_for_root_alone(lab: Lab) -> None:
    for site in lab.sites:
        secrets = site.host.file("/etc/towline/secrets.yml")
        assert (secrets.user, secrets.mode) == ("root", 0o600)
    for node in lab.nodes.values():
        assert node.ok("find /etc/iscsi/nodes -type f ! -perm 600") == ""


def test_provisioning_services_run_and_come_back_at_boot(lab: Lab) -> None:
    for site in lab.sites:
        for name in (lab.unit, "towline-target.service"):
            service = site.host.service(name)
            assert service.is_running and service.is_enabled, f"{site.name}: {name}"
    for node in lab.nodes.values():
        sessions = node.ok("systemctl list-units --no-legend --plain 'towline-session@*'")
        assert sessions and all(" active " in line for line in sessions.splitlines())
        assert node.ok("iscsiadm -m session").count("towline") == len(sessions.splitlines())

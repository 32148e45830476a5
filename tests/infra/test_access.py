"""Who gets a session and who does not: CHAP both ways, explicit ACLs, no secret in a log (F38)."""

from __future__ import annotations

import shlex
from collections.abc import Iterator

import pytest
import yaml

from replicator.codec import naming
from tests import tally
from tests.infra.lab import Lab, until

STRANGER = "iqn.2026-11.org.example:stranger"
WRONG = "wrongWrong12345"


def _inquiry(lab: Lab, initiator: str, user: str = "") -> tuple[int, str]:
    """Try a login with libiscsi from the host; return how it ended."""
    url = f"iscsi://{user}{lab.address(lab.group.primary.name)}/{lab.data_target()}/0"
    result = lab.app.run(f"timeout 20 iscsi-inq -i {initiator} {shlex.quote(url)}")
    return result.rc, result.stdout + result.stderr


def test_access_stranger_is_refused(lab: Lab) -> None:
    code, text = _inquiry(lab, STRANGER)
    assert code != 0, text
    code, text = _inquiry(lab, STRANGER, f"{STRANGER}%{WRONG}@")
    assert code != 0, text
    tally.count("F38")


def test_access_known_initiator_with_no_or_a_wrong_secret_is_refused(lab: Lab) -> None:
    host = lab.topology.hosts[0]
    code, text = _inquiry(lab, host.initiator)
    assert code != 0, text
    code, text = _inquiry(lab, host.initiator, f"{naming.chap_userid(host.name)}%{WRONG}@")
    assert code != 0, text
    tally.count("F38")


@pytest.mark.parametrize("initiator", [STRANGER, "known"])
def test_access_discovery_without_authentication_gives_nothing(lab: Lab, initiator: str) -> None:
    name = lab.topology.hosts[0].initiator if initiator == "known" else initiator
    for site in lab.sites:
        url = f"iscsi://{lab.address(site.name)}"
        found = lab.app.run(f"timeout 20 iscsi-ls -i {name} {url}")
        assert lab.topology.iqn_prefix not in found.stdout, found.stdout
    tally.count("F38")


@pytest.fixture
def logged_out(lab: Lab) -> Iterator[str]:
    """c without its session to a's journal (it pulls from b); the record's file; both restored."""
    target = naming.journal_target_iqn(lab.topology.iqn_prefix, lab.group.name, "a")
    record, node = f"/etc/iscsi/nodes/{target}", lab["c"]
    file = node.ok(f"find {record} -type f").strip()
    node.ok(f"cp -a {file} /etc/iscsi/.towline-test && systemctl stop towline-session@{target}")
    yield file
    node.ok(f"mv /etc/iscsi/.towline-test {file} && systemctl start towline-session@{target}")
    disk = naming.peer_journal_path(lab.topology, lab.group.name, "a")
    until(lambda: node.run(f"test -b {disk}").rc == 0, 30, f"{disk} at c")


@pytest.mark.parametrize("which", ["password", "password_in"])
def test_access_open_iscsi_with_a_wrong_secret_does_not_log_in(
    lab: Lab, logged_out: str, which: str
) -> None:
    """``password`` is ours, ``password_in`` what the target must prove: both are insisted on."""
    node = lab["c"]
    key = f"node.session.auth.{which}"
    node.ok(f"sed -i 's/^{key} = .*/{key} = {WRONG}/' {logged_out}")
    target = logged_out.split("/")[4]
    refused = node.run(f"iscsiadm -m node -T {target} --login", 80)
    assert refused.rc in (19, 24), (refused.rc, refused.stderr)
    assert target not in node.run("iscsiadm -m session").stdout
    tally.count("F38")


def test_access_secrets_are_in_no_log_and_no_readable_file(lab: Lab) -> None:
    for node in lab.nodes.values():
        found = node.script("find_secrets")
        assert found["secrets"] >= 2, f"{node.name}: the search found no secrets to look for"
        assert found["leaks"] == [], f"{node.name}: {found}"
        assert found["readable_homes"] == [], f"{node.name}: {found}"
    for path in lab.places.state.glob("*/console.log"):
        assert not any(secret in path.read_text(errors="replace") for secret in _secrets(lab))
    tally.count("F38")


def _secrets(lab: Lab) -> list[str]:
    chap = yaml.safe_load((lab.places.state / "secrets.yml").read_text())["towline_chap"]
    return [password for entry in chap.values() for password in entry.values()]


def test_access_what_is_not_in_the_topology_is_taken_away(lab: Lab) -> None:
    """An ACL made by hand is in the plan as a removal, and gone after ``target apply``."""
    primary = lab[lab.group.primary.name]
    folder = f"/sys/kernel/config/target/iscsi/{lab.data_target()}/tpgt_1/acls/{STRANGER}"
    primary.ok(f"mkdir {folder}")
    assert STRANGER in primary.ok("replicatorctl target plan")
    primary.ok("replicatorctl target apply")
    assert primary.run(f"test -e {folder}").rc != 0

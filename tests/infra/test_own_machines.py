"""``inventory/example`` and its guide, followed as by a user, on machines with nothing of ours.

The lab's own provisioning is taken away first and comes back at the end, so this takes a while.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.infra.lab import PROJECT, PYTHON, Lab, Node, until

pytestmark = pytest.mark.own_machines

GUIDE = PROJECT / "docs/operating/own-machines.md"
DISK = "/dev/disk/by-id/virtio-towline"
PLAYBOOK_SECONDS = 1800
RECAP = re.compile(r"^(\S+)\s+: ok=\d+\s+changed=(\d+)", re.MULTILINE)
OURS = "/etc/towline /opt/towline /usr/local/bin/replicator* /etc/systemd/system/replicatord@*"


@dataclass
class Followed:
    """The copy of the example, and playbooks run with it."""

    inventory: Path
    ssh_config: Path

    def play(self, name: str, *words: str) -> subprocess.CompletedProcess[str]:
        """Run a playbook with the vault's password from a file."""
        return _play(
            name,
            *("-i", str(self.inventory / "hosts.yml")),
            *("--vault-password-file", str(self.inventory / "vault-password")),
            *("-e", f"towline_project={PROJECT}", *words),
        )


def _play(name: str, *words: str) -> subprocess.CompletedProcess[str]:
    program = str(Path(sys.executable).with_name("ansible-playbook"))
    return subprocess.run(
        [program, f"playbooks/{name}.yml", *words],
        cwd=PROJECT,
        env=os.environ | {"ANSIBLE_NOCOLOR": "1"},
        capture_output=True,
        text=True,
        timeout=PLAYBOOK_SECONDS,
    )


def _succeeds(outcome: subprocess.CompletedProcess[str]) -> dict[str, int]:
    """Assert that a playbook succeeded; return the number of changes by machine."""
    assert outcome.returncode == 0, outcome.stdout[-4000:] + outcome.stderr[-1000:]
    return {name: int(changes) for name, changes in RECAP.findall(outcome.stdout)}


def _wipe(site: Node) -> None:
    """Remove journals and volumes by hand, knowingly: teardown.yml does not."""
    site.ok(
        "if vgs towline >/dev/null 2>&1; then vgremove -qq -ff -y towline && pvremove -qq "
        f"{DISK}; fi; blkdiscard -f {DISK}; udevadm settle"
    )


@pytest.fixture
def followed(lab: Lab) -> Iterator[Followed]:
    """Blank machines, and the guide's steps 1 and 2; the lab's own provisioning comes back."""
    folder = lab.places.state / "own-machines"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(PROJECT / "inventory/example", folder)
    _name_machines(lab, folder)
    _make_secrets(folder)
    _succeeds(_play("teardown"))
    for site in lab.sites:
        _wipe(site)
    copy = Followed(folder, folder / "ssh_config")
    yield copy
    _succeeds(copy.play("teardown"))
    for site in lab.sites:
        _wipe(site)
    _succeeds(_play("site"))
    shutil.rmtree(folder)


def _name_machines(lab: Lab, folder: Path) -> None:
    """The example's names lead to the lab's machines, by ssh's configuration alone."""
    text = lab.places.ssh_config.read_text()
    for name in (*(site.name for site in lab.sites), lab.app.name):
        domain = "storage-{}.example.org" if name != lab.app.name else "{}.example.org"
        text = text.replace(f"Host {name}\n", f"Host {domain.format(name)}\n")
    (folder / "ssh_config").write_text(text)
    hosts = folder / "hosts.yml"
    common = f"    ansible_ssh_common_args: -F {folder / 'ssh_config'}\n"
    hosts.write_text(hosts.read_text() + common)
    (folder / "group_vars/towline_sites.yml").write_text(f"volumes_devices: [{DISK}]\n")


def _make_secrets(folder: Path) -> None:
    """Run the guide's own lines."""
    (program,) = re.findall(r"python3 -c '\n(.*?)'\n", GUIDE.read_text(), re.DOTALL)
    lines = "\n".join(line.removeprefix("   ") for line in program.splitlines())
    source = lines.replace("inventory/mine", str(folder))
    subprocess.run([sys.executable, "-c", source], cwd=PROJECT, check=True)
    (folder / "vault-password").write_text("correct horse battery staple\n")
    (folder / "vault-password").chmod(0o600)
    encrypt = [str(Path(sys.executable).with_name("ansible-vault")), "encrypt"]
    words = ["--vault-password-file", str(folder / "vault-password"), str(folder / "secrets.yml")]
    subprocess.run([*encrypt, *words], check=True, capture_output=True)
    assert (folder / "secrets.yml").read_text().startswith("$ANSIBLE_VAULT")


def test_own_machines_by_the_guide_from_blank_to_teardown(lab: Lab, followed: Followed) -> None:
    _refuses_a_disk_that_is_not_blank(lab["b"], followed)
    changes = _succeeds(followed.play("site"))
    assert len([name for name in changes if name.endswith(".example.org")]) == 4, changes
    _shows_a_group_that_follows(followed)
    _write_and_find_everywhere(lab)
    before = {site.name: lab.page(site.name)["journal_id"] for site in lab.sites}
    _succeeds(followed.play("teardown"))
    _assert_nothing_is_left(lab)
    again = _succeeds(followed.play("teardown"))
    assert set(again.values()) == {0}, again
    _succeeds(followed.play("site"))
    assert {site.name: lab.page(site.name)["journal_id"] for site in lab.sites} == before
    _shows_a_group_that_follows(followed)


def _refuses_a_disk_that_is_not_blank(site: Node, followed: Followed) -> None:
    """The guide's step 3: check mode tells of it, and the run itself changes nothing there."""
    site.ok(f"mkswap -q {DISK}")
    looked = followed.play(
        "site", "--check", "--diff", "--limit", f"storage-{site.name}.example.org"
    )
    assert looked.returncode != 0
    assert f"{DISK} is not blank (swap)" in looked.stdout.replace("\n", " "), looked.stdout[-2000:]
    assert "swap" in site.ok(f"wipefs --noheadings {DISK}")
    site.ok(f"wipefs -qa {DISK}")


def _shows_a_group_that_follows(followed: Followed) -> None:
    def shown() -> bool:
        text = followed.play("status").stdout
        return text.count("serving") >= 3 and text.count("following") >= 6

    until(shown, 300, "status.yml shows one site serving and two following, from each of three")


def _write_and_find_everywhere(lab: Lab) -> None:
    disk = lab.app.ok("ls /dev/disk/by-path/*-lun-1").split()[0]
    lab.app.ok(f"dd if=/dev/urandom of={disk} bs=1M count=8 oflag=direct status=none")
    path = "/dev/towline/orders-wal"

    def same() -> bool:
        found = [site.script("digest", 0, 8 << 20, path, python=PYTHON) for site in lab.sites]
        return all(each == found[0] for each in found)

    until(same, 300, "the write is the same at all sites")


def _assert_nothing_is_left(lab: Lab) -> None:
    for node in lab.nodes.values():
        assert "towline" not in node.run("iscsiadm -m session; iscsiadm -m node").stdout
        assert node.run("pgrep -f /opt/towline").rc != 0
    for site in lab.sites:
        assert "towline" not in site.ok(
            "ls /sys/kernel/config/target/iscsi /sys/kernel/config/target/core/*"
        )
        assert site.run(f"ls -d {OURS}").stdout.strip() == ""
        kept = set(site.ok("lvs --noheadings -o lv_name towline").split())
        assert kept == {"orders-journal", "orders-db", "orders-wal"}

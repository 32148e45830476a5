"""The systems of the sites leave alone what is inside replicated volumes (F44)."""

from __future__ import annotations

from tests import tally
from tests.infra.lab import Lab


def test_host_system_lvm_inside_a_volume_is_picked_up_at_no_site(lab: Lab) -> None:
    """The host makes a volume group on the disk; sites must neither see nor activate it."""
    disk = lab.host_disk("scratch")
    devices = f"--devices $(readlink -f {disk})"
    quiet = "--yes --quiet"
    lab.app.ok(f"pvcreate {devices} {quiet} -ff $(readlink -f {disk})")
    try:
        lab.app.ok(f"vgcreate {devices} {quiet} stranger $(readlink -f {disk})")
        lab.app.ok(f"lvcreate {devices} {quiet} -an -Zn -n inside -l 4 stranger")
        lab.converge()
        for site in lab.sites:
            site.ok("udevadm trigger --subsystem-match=block --action=change && udevadm settle")
            assert "stranger" not in site.ok("pvscan; vgs --noheadings; lvs --noheadings")
            assert "stranger" not in site.ok("dmsetup ls; ls /dev/disk/by-* /dev/mapper")
            own = site.ok(f"lsblk -nro NAME,TYPE {lab.volume(site.name, 'scratch')}").split("\n")
            assert len([line for line in own if line]) == 1, own
    finally:
        lab.app.run(
            f"vgremove {devices} {quiet} -f stranger; pvremove {devices} {quiet} -ff {disk}"
        )
        lab.app.ok(f"wipefs -qa {disk}")
    tally.count("F44")


def test_host_system_multipath_grabs_nothing_at_a_site(lab: Lab) -> None:
    for site in lab.sites:
        assert site.ok("multipath -l").strip() == ""
        assert "create" not in site.run("multipath -d -v2").stdout
    tally.count("F44")


def test_host_system_runs_no_other_owner_of_the_target(lab: Lab) -> None:
    """No tcmu-runner, no saved target configuration with its clear-text secrets."""
    for site in lab.sites:
        assert site.run("pgrep -x tcmu-runner").rc != 0
        assert site.run("ls /etc/target/saveconfig.json /etc/rtslib-fb-target/saveconfig.json").rc
        assert site.host.service("towline-target").is_enabled
        assert site.host.service(lab.unit).is_enabled

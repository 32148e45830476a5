"""What the three sites are for: a host's write arrives at b and at c, byte for byte."""

from __future__ import annotations

import json

from tests import tally
from tests.infra.lab import Lab, Stamps


def test_replication_host_writes_arrive_byte_identical_at_every_site(
    lab: Lab, stamps: Stamps
) -> None:
    stamps.write(300)
    lab.assert_same_everywhere(["scratch"])
    assert [stamps.held_by(site.name) for site in lab.sites] == [300, 300, 300]


def test_replication_idle_sites_agree_in_their_status(lab: Lab) -> None:
    lab.converge()
    views = {}
    for site in lab.sites:
        status = json.loads(site.ok("replicatorctl status --json"))
        assert status["schema"] == 1 and status["daemon"] is not None
        rows = {row["site"]: row for row in status["sites"]}
        assert {name: row["role"] for name, row in rows.items()} == {
            part.name: "primary" if part.primary else "secondary" for part in lab.group.sites
        }
        assert all(row["state"] in ("serving", "following") for row in rows.values()), rows
        views[site.name] = {
            name: (row["received"]["position"], row["received"]["digest"])
            for name, row in rows.items()
        }
    assert len({pair for view in views.values() for pair in view.values()}) == 1, views
    assert len({json.dumps(view, sort_keys=True) for view in views.values()}) == 1


def test_replication_check_at_every_site_is_ok(lab: Lab) -> None:
    lab.converge()
    for site in lab.sites:
        verdict = site.run("replicatorctl check")
        assert verdict.rc == 0, f"{site.name}: {verdict.stdout}"


def test_replication_restored_volumes_are_held_exclusively(lab: Lab) -> None:
    """Nothing at a secondary can mount or partition what replicatord restores."""
    opening = "import os; os.open('{}', os.O_RDWR | os.O_EXCL)"
    for site in lab.sites[1:]:
        path = lab.volume(site.name, "scratch")
        refused = site.run(f'python3 -c "{opening.format(path)}"')
        assert refused.rc != 0 and "busy" in refused.stderr, refused
    tally.count("F44")


def test_replication_second_replicator_on_the_same_journal_is_refused(lab: Lab) -> None:
    refused = lab["b"].run(f"replicatord --group {lab.group.name}", 60)
    assert refused.rc == 5, (refused.rc, refused.stderr)
    assert lab["b"].host.service(lab.unit).is_running
    tally.count("F45")

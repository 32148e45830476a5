"""A good topology: what is read from it, and every violation of a bad one at once."""

from __future__ import annotations

import pytest

from replicator.codec.topology import AdaptiveInterval, Devices, FixedInterval
from replicator.codec.topology_file import parse_topology
from replicator.errors import ConfigError, UsageError
from replicator.seams.nodefiles import read_site_name, read_topology
from tests.unit.topologies import GOOD, REMOVED, changed


def test_topology_good_file_gives_typed_values() -> None:
    topology = parse_topology(GOOD, folder="/srv/lab")
    orders = topology.group("orders")
    assert [(v.id, v.name, v.size_bytes) for v in orders.volumes] == [
        (1, "db", 2 << 30),
        (2, "wal", 512 << 20),
    ]
    assert orders.journal.size_bytes == 1 << 30
    assert orders.primary.name == "a"
    assert orders.site("b").upstream == "a"
    assert orders.site("b").interval == AdaptiveInterval(
        inputs=("records",), min_seconds=0.1, max_seconds=5.0
    )
    assert orders.site("c").interval == FixedInterval(seconds=0.5)
    assert [site.name for site in orders.peers("b")] == ["a", "c"]
    assert [site.name for site in orders.downstream("b")] == ["c"]
    assert topology.site("a").devices == Devices(kind="lvm", path="towline")
    assert topology.site("c").devices == Devices(kind="directory", path="/srv/lab/state/c")
    assert topology.site("c").address == "198.51.100.13"
    assert topology.host("app1").groups == ("orders",)
    assert topology.groups_at("b") == (orders,)
    assert topology.hosts_of("orders") == (topology.host("app1"),)


def test_topology_near_site_is_written_by_the_primary_and_may_have_no_data() -> None:
    near = {"upstream": "a", "link": "sync-or-degrade", "data": "none"}
    orders = parse_topology(changed({"groups/orders/sites/b": near}), folder="/srv").group("orders")
    assert orders.near is not None
    assert (orders.near.name, orders.near.data, orders.near.sync) == ("b", False, True)
    assert orders.downstream("a") == ()
    assert [site.name for site in orders.downstream("b")] == ["c"]
    assert parse_topology(GOOD, folder="/srv").group("orders").near is None


def test_topology_optional_parts_missing_get_their_defaults() -> None:
    text = changed(
        {
            "naming": REMOVED,
            "hosts": REMOVED,
            "groups/orders/journal": {"size": "1GiB"},
            "groups/orders/sites/b": {"upstream": "a"},
        }
    )
    topology = parse_topology(text)
    assert topology.iqn_prefix == "iqn.2026-11.org.example.towline"
    assert topology.hosts == ()
    assert topology.group("orders").journal.when_full == "detach"
    assert topology.group("orders").site("b").link == "pull"


def test_topology_volume_ids_given_are_kept() -> None:
    text = changed({"groups/orders/volumes/db": {"id": 7, "size": "1MiB"}})
    assert [v.id for v in parse_topology(text).group("orders").volumes] == [7, 2]


def test_topology_two_readers_of_one_source_are_allowed() -> None:
    text = changed({"groups/orders/sites/c/upstream": "a"})
    orders = parse_topology(text).group("orders")
    assert [site.name for site in orders.downstream("a")] == ["b", "c"]


def test_topology_many_mistakes_are_reported_at_once() -> None:
    text = changed(
        {
            "naming/iqn_prefix": "towline",
            "groups/orders/volumes/db": "3B",
            "groups/orders/journal/size": "1MiB",
            "groups/orders/sites/b": {"upstream": "x", "link": "sync", "speed": 9},
            "groups/orders/sites/c/interval": {"fixed": "1s", "max": "2s"},
            "sites/a/address": "nowhere",
            "sites/b/devices": "zfs:tank",
            "hosts/app1/groups": ["bills"],
        }
    )
    with pytest.raises(ConfigError) as refusal:
        parse_topology(text)
    places = [violation.split(": ")[0] for violation in refusal.value.violations]
    assert sorted(places) == [
        "groups.orders.journal.size",
        "groups.orders.sites.b.link",
        "groups.orders.sites.b.speed",
        "groups.orders.sites.b.upstream",
        "groups.orders.sites.c.interval.fixed",
        "groups.orders.volumes.db",
        "hosts.app1.groups",
        "naming.iqn_prefix",
        "sites.a.address",
        "sites.b.devices",
    ]
    assert refusal.value.exit_code == 3


def test_topology_unknown_name_looked_up_names_those_that_exist() -> None:
    topology = parse_topology(GOOD)
    with pytest.raises(UsageError, match="no group is called 'bills'; the topology has: orders"):
        topology.group("bills")
    with pytest.raises(UsageError, match="no site of group orders is called 'z'"):
        topology.group("orders").site("z")


def test_read_topology_missing_file_says_how_to_name_another(tmp_path) -> None:
    with pytest.raises(ConfigError, match=r"cannot be read: No such file.*TOWLINE_TOPOLOGY"):
        read_topology(tmp_path / "topology.yml")


def test_read_topology_of_bytes_that_are_not_text_is_refused(tmp_path) -> None:
    path = tmp_path / "topology.yml"
    path.write_bytes(b"groups: \xff")
    with pytest.raises(ConfigError, match="expected UTF-8 text, got byte 8"):
        read_topology(path)


def test_read_topology_relative_directory_starts_at_the_files_folder(tmp_path) -> None:
    path = tmp_path / "topology.yml"
    path.write_text(GOOD)
    assert read_topology(path).site("c").devices.path == f"{tmp_path}/state/c"


def test_read_site_name_of_two_words_is_refused(tmp_path) -> None:
    path = tmp_path / "site"
    path.write_text("a\n")
    assert read_site_name(path) == "a"
    path.write_text("a b\n")
    with pytest.raises(ConfigError, match="expected one line"):
        read_site_name(path)


def test_topology_every_interval_policy_is_read() -> None:
    topology = parse_topology(
        changed(
            {
                "groups/orders/sites/b/rpo": "5s",
                "groups/orders/sites/b/interval": {
                    "inputs": ["source", "traffic", "load"],
                    "min": "100ms",
                    "max": "30s",
                    "traffic_limit": "20Mbit",
                    "load_limit": "60%",
                    "bounds": {"source": {"max": "10s"}},
                },
                "groups/orders/sites/c": {"upstream": "b", "rpo": "8s"},
            }
        )
    )
    orders = topology.group("orders")
    b = orders.site("b")
    assert isinstance(b.interval, AdaptiveInterval)
    assert (b.rpo_seconds, b.interval.rpo_seconds) == (5.0, 5.0)
    assert b.interval.inputs == ("traffic", "load", "source")
    assert (b.interval.traffic_limit, b.interval.load_limit) == (2.5e6, 0.6)
    assert b.interval.bounds_of("source") == (0.1, 10.0)
    assert b.interval.bounds_of("load") == (0.1, 30.0)
    alone = orders.site("c").interval
    assert alone == AdaptiveInterval(inputs=(), min_seconds=0.1, max_seconds=8.0, rpo_seconds=8.0)


def test_topology_verify_rate_is_bytes_a_second_and_nothing_without_it() -> None:
    verified = parse_topology(changed({"groups/orders/verify": {"rate": "80Mbit"}}))
    assert verified.group("orders").verify_rate == 10e6
    assert parse_topology(GOOD).group("orders").verify_rate is None

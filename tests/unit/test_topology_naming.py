"""Names derived from the topology: written out, because other systems store them."""

from __future__ import annotations

import re

from replicator.codec import naming
from replicator.codec.topology_file import parse_topology
from tests.unit.topologies import GOOD

TOPOLOGY = parse_topology(GOOD, folder="/srv/lab")
A, C = TOPOLOGY.site("a"), TOPOLOGY.site("c")
PREFIX = TOPOLOGY.iqn_prefix


def test_naming_paths_at_an_lvm_site_are_logical_volumes() -> None:
    assert naming.journal_path(A, "orders") == "/dev/towline/orders-journal"
    assert naming.volume_path(A, "orders", "db") == "/dev/towline/orders-db"
    assert naming.control_socket_path(A, "orders") == "/run/towline/orders.sock"


def test_naming_paths_at_a_directory_site_are_files_in_it() -> None:
    assert naming.journal_path(C, "orders") == "/srv/lab/state/c/orders.journal"
    assert naming.volume_path(C, "orders", "db") == "/srv/lab/state/c/orders.db.img"
    assert naming.control_socket_path(C, "orders") == "/srv/lab/state/c/orders.sock"
    assert naming.nbd_socket_path(C, "orders") == "/srv/lab/state/c/orders.nbd"


def test_naming_peer_journal_is_the_lun_or_the_file() -> None:
    assert naming.peer_journal_path(TOPOLOGY, "orders", "a") == (
        "/dev/disk/by-path/ip-198.51.100.11:3260-iscsi-"
        "iqn.2026-11.org.example.towline:orders.a.journal-lun-0"
    )
    assert naming.peer_journal_path(TOPOLOGY, "orders", "c") == "/srv/lab/state/c/orders.journal"


def test_naming_targets_and_backstores_are_those_of_the_contract() -> None:
    assert naming.data_target_iqn(PREFIX, "orders", "a") == f"{PREFIX}:orders.a.data"
    assert naming.site_initiator_iqn(PREFIX, "b") == f"{PREFIX}:b.initiator"
    assert naming.journal_backstore("orders") == "orders-journal"
    assert naming.volume_backstore("orders", "db") == "orders-db"
    assert naming.uio_name_suffix("orders", "db") == "/orders-db/towline/orders/db"
    assert naming.data_lun(TOPOLOGY.group("orders"), "wal") == 1
    assert naming.target_port_group(TOPOLOGY.group("orders"), "c") == 3


def test_naming_initiators_are_sites_and_hosts_with_their_chap_users() -> None:
    assert naming.initiators(TOPOLOGY) == {
        f"{PREFIX}:a.initiator": "a",
        f"{PREFIX}:b.initiator": "b",
        f"{PREFIX}:c.initiator": "c",
        "iqn.2026-11.org.example:app1": "app1",
    }


def test_naming_identity_of_a_volume_never_changes() -> None:
    assert naming.volume_naa("orders", "db") == "6001405" + naming.volume_serial("orders", "db")
    assert re.fullmatch("[0-9a-f]{32}", naming.volume_naa("orders", "db"))
    assert naming.volume_serial("orders", "db") == "e57b301333fb26d317458ffa7"
    assert naming.volume_serial("orders", "wal") != naming.volume_serial("orders", "db")

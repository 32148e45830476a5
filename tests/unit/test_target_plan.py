"""The wanted LIO tree, its plan, and applying it: order, idempotence, secrets."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from replicator.codec.target_tree import Kind, MappedLun, Tree, UserBackstore
from replicator.codec.topology import Topology
from replicator.codec.topology_file import parse_topology
from replicator.errors import ConfigError, TargetFailed
from replicator.seams.secretsfile import read_chap_secrets
from replicator.target.apply import apply_plan, confirm
from replicator.target.plan import Verb, compute_plan
from replicator.target.wanted import ChapSecret, wanted_tree
from tests.fakes.lio import MemoryLio

TEXT = """
groups:
  orders:
    volumes: {db: 2GiB, wal: 512MiB}
    journal: {size: 1GiB, when_full: hold}
    sites:
      a: {primary: true}
      b: {upstream: a, link: pull, interval: {fixed: 500ms}}
      c: {upstream: b, link: pull, interval: {fixed: 500ms}}
sites:
  a: {address: 198.51.100.11, devices: "lvm:towline"}
  b: {address: 198.51.100.12, devices: "lvm:towline"}
  c: {address: 198.51.100.13, devices: "directory:state/c"}
hosts:
  app1: {initiator: "iqn.2026-11.org.example:app1", groups: [orders]}
"""
PREFIX = "iqn.2026-11.org.example.towline"
JOURNAL = f"{PREFIX}:orders.a.journal"
DATA = f"{PREFIX}:orders.a.data"
SECRETS = {
    name: ChapSecret(f"password{index:04d}", f"mutualpw{index:04d}")
    for index, name in enumerate(
        (
            "iqn.2026-11.org.example:app1",
            f"{PREFIX}:a.initiator",
            f"{PREFIX}:b.initiator",
            f"{PREFIX}:c.initiator",
        )
    )
}


def topology(text: str = TEXT) -> Topology:
    return parse_topology(text, "topology.yml", "/srv")


def at_site(site: str = "a", text: str = TEXT) -> Tree:
    return wanted_tree(topology(text), site, SECRETS)


def applied(wanted: Tree, lio: MemoryLio) -> MemoryLio:
    apply_plan(compute_plan(wanted, lio.read()), lio)
    return lio


def test_wanted_journal_is_read_only_for_every_other_site() -> None:
    tree = at_site()
    peers = [key[2] for key in tree if key[0] is Kind.MAPPED_LUN and key[1] == JOURNAL]
    assert sorted(peers) == [f"{PREFIX}:b.initiator", f"{PREFIX}:c.initiator"]
    for key, value in tree.items():
        if key[0] is Kind.MAPPED_LUN and key[1] == JOURNAL:
            assert isinstance(value, MappedLun) and value.write_protect
    assert tree[Kind.BACKSTORE_ATTRIBUTE, "block", "orders-journal", "emulate_3pc"] == "0"
    assert tree[Kind.TPG_ATTRIBUTE, JOURNAL, "generate_node_acls"] == "0"
    assert tree[Kind.PORTAL, JOURNAL, "198.51.100.11:3260"] is True


def test_wanted_data_target_serves_at_the_primary_alone() -> None:
    assert at_site("a")[Kind.ENABLED, DATA] is True
    assert at_site("a")[Kind.ALUA_STATE, "user", "orders-db"] == 0
    other = at_site("b")
    assert other[Kind.ENABLED, f"{PREFIX}:orders.b.data"] is False
    assert other[Kind.ALUA_STATE, "user", "orders-db"] == 2
    backstore = other[Kind.BACKSTORE, "user", "orders-wal"]
    assert isinstance(backstore, UserBackstore)
    assert backstore.config == "towline/orders/wal" and backstore.size_bytes == 512 << 20
    assert other[Kind.LUN, f"{PREFIX}:orders.b.data", "1"] == "user/orders-wal"


def test_wanted_directory_site_has_no_targets() -> None:
    assert at_site("c") == {}


def test_wanted_missing_secrets_are_named_together() -> None:
    with pytest.raises(ConfigError) as caught:
        wanted_tree(topology(), "a", {})
    assert len(caught.value.violations) == 3


def test_plan_from_nothing_then_again_is_nothing() -> None:
    wanted = at_site()
    lio = applied(wanted, MemoryLio())
    assert lio.tree == wanted
    assert compute_plan(wanted, lio.read()) == []
    confirm(wanted, lio)


def test_plan_enables_last_and_gives_secrets_after_mappings() -> None:
    steps = compute_plan(at_site(), {})
    kinds = [step.key[0] for step in steps]
    assert kinds[-1] is Kind.ENABLED
    last_mapping = max(i for i, kind in enumerate(kinds) if kind is Kind.MAPPED_LUN)
    assert last_mapping < kinds.index(Kind.CHAP)


def test_plan_shows_no_secret() -> None:
    changed = dict(SECRETS)
    changed["iqn.2026-11.org.example:app1"] = ChapSecret("newpassword1", "newmutual001")
    wanted = wanted_tree(topology(), "a", changed)
    steps = compute_plan(wanted, {}) + compute_plan(wanted, at_site())
    shown = "\n".join(step.line() for step in steps)
    shown += json.dumps([step.as_json() for step in steps]) + repr(steps)
    for secret in [*SECRETS.values(), *changed.values()]:
        assert secret.password not in shown and secret.mutual_password not in shown
    rotation = compute_plan(wanted, at_site())
    assert [(step.verb, step.key[0]) for step in rotation] == [(Verb.SET, Kind.CHAP)]


def test_plan_interrupted_at_any_step_goes_on_from_there() -> None:
    wanted = at_site()
    total = len(compute_plan(wanted, {}))
    for fail_at in range(1, total + 1):
        lio = MemoryLio(fail_at)
        with pytest.raises(TargetFailed):
            applied(wanted, lio)
        assert applied(wanted, lio).tree == wanted


def test_plan_removes_what_is_no_longer_wanted_even_when_interrupted() -> None:
    total = len(compute_plan({}, at_site()))
    for fail_at in range(total + 1):
        lio = MemoryLio()
        applied(at_site(), lio)
        lio.changes, lio.fail_at = 0, fail_at
        if fail_at:
            with pytest.raises(TargetFailed):
                applied({}, lio)
        assert set(applied({}, lio).tree) == {(Kind.DISCOVERY_CLOSED, "iscsi")}


def test_plan_changed_volume_serial_replaces_it_with_what_rests_on_it() -> None:
    lio = applied(at_site(), MemoryLio())
    other = at_site()
    key = (Kind.BACKSTORE, "user", "orders-wal")
    wal = other[key]
    assert isinstance(wal, UserBackstore)
    other[key] = replace(wal, serial="0" * 25)
    steps = compute_plan(other, lio.read())
    assert {step.key[0] for step in steps if step.verb is Verb.REMOVE} == {
        Kind.BACKSTORE,
        Kind.LUN,
        Kind.MAPPED_LUN,
    }
    assert applied(other, lio).tree == other


def test_plan_grown_volume_touches_nothing_under_its_hosts() -> None:
    lio = applied(at_site(), MemoryLio())
    assert compute_plan(at_site(text=TEXT.replace("512MiB", "768MiB")), lio.read()) == []


def test_plan_removed_volume_leaves_the_luns_of_the_others() -> None:
    lio = applied(at_site(), MemoryLio())
    without = at_site(text=TEXT.replace("db: 2GiB, wal: 512MiB", "wal: {id: 2, size: 512MiB}"))
    names = [name for step in compute_plan(without, lio.read()) for name in step.key[1:]]
    assert "orders-db" in names
    assert "orders-wal" not in names
    assert applied(without, lio).tree == without


def test_plan_hand_over_disables_the_data_target() -> None:
    lio = applied(at_site(), MemoryLio())
    follower = wanted_tree(topology(), "a", SECRETS, serves=lambda group: False)
    steps = compute_plan(follower, lio.read())
    assert {step.verb for step in steps} == {Verb.SET}
    assert applied(follower, lio).tree == follower


def test_plan_leaves_attributes_that_it_does_not_name() -> None:
    lio = applied(at_site(), MemoryLio())
    lio.tree[Kind.TPG_ATTRIBUTE, DATA, "login_timeout"] = "15"
    assert compute_plan(at_site(), lio.read()) == []


def test_plan_extra_acl_and_writable_mapping_are_taken_back() -> None:
    lio = applied(at_site(), MemoryLio())
    peer = f"{PREFIX}:b.initiator"
    lio.tree[Kind.MAPPED_LUN, JOURNAL, peer, "0"] = MappedLun(0, write_protect=False)
    lio.tree[Kind.ACL, JOURNAL, "iqn.2026-11.org.example:stranger"] = True
    assert applied(at_site(), lio).tree == at_site()


def test_secrets_file_is_read_and_refusals_quote_no_secret(tmp_path: Path) -> None:
    path = tmp_path / "secrets.yml"
    good = "chap: {'iqn.a': {password: abcdefgh1234, mutual_password: abcdefgh5678}}"
    path.write_text(good)
    path.chmod(0o600)
    assert read_chap_secrets(path) == {"iqn.a": ("abcdefgh1234", "abcdefgh5678")}
    for bad in (
        "chap: {'iqn.a': {password: short, mutual_password: abcdefgh5678}}",
        "chap: {'iqn.a': {password: abcdefgh5678, mutual_password: abcdefgh5678}}",
        "chap: {'iqn.a': {password: abcdefgh5678}}",
        "chap: [abcdefgh5678]",
        "chap: {abcdefgh5678",
        "",
    ):
        path.write_text(bad)
        with pytest.raises(ConfigError) as caught:
            read_chap_secrets(path)
        assert "abcdefgh5678" not in str(caught.value) and "short" not in str(caught.value)


def test_secrets_file_that_others_can_read_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "secrets.yml"
    path.write_text("chap: {}")
    path.chmod(0o640)
    with pytest.raises(ConfigError, match="0640"):
        read_chap_secrets(path)
    with pytest.raises(ConfigError):
        read_chap_secrets(tmp_path / "absent.yml")


NEAR = TEXT.replace(
    "b: {upstream: a, link: pull, interval: {fixed: 500ms}}",
    "b: {upstream: a, link: sync-or-stop, data: none}",
)
LEG = f"{PREFIX}:orders.b.leg"


def test_wanted_leg_is_writable_for_the_primary_alone_on_a_target_of_its_own() -> None:
    tree = at_site("b", NEAR)
    mapped = {key[1:3]: value for key, value in tree.items() if key[0] is Kind.MAPPED_LUN}
    writable = [place for place, value in mapped.items() if not value.write_protect]  # type: ignore[union-attr]
    assert writable == [(LEG, f"{PREFIX}:a.initiator")]
    assert (Kind.ENABLED, LEG) in tree and tree[Kind.ENABLED, LEG] is True
    assert not [key for key in tree if key[0] is Kind.TARGET and key[1].endswith(".data")]
    assert not [key for key in at_site("a", NEAR) if key[1].endswith(".leg")]


def test_wanted_leg_of_a_sealed_ring_lets_nobody_in() -> None:
    tree = wanted_tree(topology(NEAR), "b", SECRETS, writer=lambda group: None)
    assert tree[Kind.ENABLED, LEG] is False
    assert not [key for key in tree if key[0] is Kind.ACL and key[1] == LEG]
    sealed = applied(tree, applied(at_site("b", NEAR), MemoryLio()))
    assert compute_plan(tree, sealed.read()) == []


def test_wanted_journal_backstore_is_writable_only_where_a_leg_ends() -> None:
    for text, expected in ((TEXT, True), (NEAR, False)):
        backstore = at_site("b", text)[Kind.BACKSTORE, "block", "orders-journal"]
        assert backstore.read_only is expected  # type: ignore[union-attr]

"""Metrics: made from a status, all documented, and alert rules that name only what exists."""

from __future__ import annotations

import re
import threading
import urllib.request
from pathlib import Path

import pytest
import yaml
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import Metric
from prometheus_client.parser import text_string_to_metric_families

from replicator.cli.metrics import parse_listen
from replicator.daemon.metrics import METRICS, PREFIX, families, samples
from replicator.errors import UsageError
from replicator.status import (
    Counters,
    DaemonStatus,
    GroupStatus,
    Lag,
    MeasuredStatus,
    PositionStatus,
    PullStatus,
    RestoreStatus,
    SiteStatus,
    VolumeStatus,
    unseen_site,
)

ROOT = Path(__file__).parents[2]
REFERENCE = ROOT / "docs/reference/metrics.md"
RULES = ROOT / "roles/monitoring/files/towline.rules.yml"
AT = PositionStatus(position=8192, digest="00", sequence=2, time_ns=5)
LAG = Lag(records=3, bytes=24576, seconds=1.5)
MEASURED = MeasuredStatus(
    interval_seconds=0.5,
    elapsed_seconds=0.5,
    more_waiting=False,
    traffic=1e6,
    traffic_wait_seconds=0.0,
    used=0.4,
    full=False,
    load=0.3,
    source=0.2,
    lag_seconds=1.5,
)
PULL = PullStatus(
    source="a",
    at_ns=1_000_000_000,
    records=7,
    bytes=4096,
    interval_seconds=0.25,
    reason="source",
    winner="source",
    seconds=0.01,
    measured=MEASURED,
    proposals={"records": 0.5, "source": 0.25},
)
STATUS = GroupStatus(
    group="orders",
    site="b",
    at_ns=3_000_000_000,
    sites=(
        SiteStatus(site="a", view="page", role="primary", state="serving", ring_bytes=1000),
        SiteStatus(
            site="b",
            view="daemon",
            role="secondary",
            state="halted",
            received=AT,
            restored=AT,
            lag=LAG,
            restore_lag=LAG,
            ring_bytes=1000,
            used_bytes=400,
            pull=PULL,
            restore=RestoreStatus(state="paused", applied=8192, behind_bytes=0),
            marks={"halted": "rot", "degraded": "link cut"},
            faults={"pull": "no connection"},
            rpo_seconds=5.0,
            unchanged_seconds=2.0,
        ),
    ),
    volumes=(VolumeStatus(id=1, name="db", size_bytes=4096, state="failed"),),
    daemon=DaemonStatus(
        pid=1,
        version="1",
        uptime_seconds=60.0,
        anonymous_memory_bytes=1 << 20,
        counters=Counters(pulls=9, pulled_records=7, link_bytes=99, restored_batches=4),
    ),
)


def scraped(*statuses: GroupStatus) -> dict[str, dict[tuple[tuple[str, str], ...], float]]:
    """Return what Prometheus would read: sample name to labels to value."""

    class Collector:
        def collect(self) -> list[Metric]:
            return families(statuses)

    registry = CollectorRegistry(auto_describe=False)
    registry.register(Collector())
    found: dict[str, dict[tuple[tuple[str, str], ...], float]] = {}
    for family in text_string_to_metric_families(generate_latest(registry).decode()):
        for sample in family.samples:
            labels = tuple(sorted(sample.labels.items()))
            found.setdefault(sample.name, {})[labels] = sample.value
    return found


def test_metrics_say_what_the_status_says() -> None:
    found = scraped(STATUS)
    own = (("group", "orders"), ("site", "b"), ("view", "own"))
    group = (("group", "orders"),)
    assert found["replicator_lag_seconds"][own] == 1.5
    assert found["replicator_rpo_seconds"][own] == 5.0
    assert found["replicator_journal_used_bytes"][own] == 400
    assert found["replicator_site_state"][(*own[:2], ("state", "halted"), own[2])] == 1
    assert found["replicator_site_state"][(*own[:2], ("state", "following"), own[2])] == 0
    assert found["replicator_site_mark"][(group[0], ("mark", "degraded"), *own[1:])] == 1
    assert found["replicator_pull_winner"][(*group, ("winner", "source"))] == 1
    assert found["replicator_pull_proposal_seconds"][(*group, ("input", "records"))] == 0.5
    assert found["replicator_pull_age_seconds"][group] == 2.0
    assert found["replicator_pulls_total"][group] == 9
    assert found["replicator_volume_failed"][(*group, ("volume", "db"))] == 1


def test_metrics_each_has_a_sample_in_a_full_status() -> None:
    assert {name for name, _, _ in samples(STATUS)} == {each.name for each in METRICS}


def test_metrics_without_a_daemon_say_so_and_nothing_that_is_not_known() -> None:
    away = GroupStatus(group="orders", site="b", at_ns=0, sites=(unseen_site("b", "nobody"),))
    found = scraped(away)
    assert list(found["replicator_daemon_up"].values()) == [0]
    assert "replicator_lag_seconds" not in found
    assert "replicator_pulls_total" not in found


def test_metrics_names_follow_the_house_style() -> None:
    for each in METRICS:
        assert re.fullmatch(r"[a-z]+(_[a-z]+)*", each.name)
        assert each.name.endswith("_total") == (each.kind == "counter")


def test_metrics_every_one_is_documented_and_nothing_else() -> None:
    rows = re.findall(r"^\| `(replicator_\w+)`", REFERENCE.read_text(), re.M)
    assert rows == [PREFIX + each.name for each in METRICS]
    for line in REFERENCE.read_text().splitlines():
        if line.startswith("| `replicator_"):
            assert len(line.split(" | ")) == 4, f"says when to be alarmed, or never: {line}"


def test_alert_rules_name_only_metrics_and_runbooks_that_exist() -> None:
    known = {PREFIX + each.name: set(each.labels) for each in METRICS}
    content = yaml.safe_load(RULES.read_text())
    rules = [rule for group in content["groups"] for rule in group["rules"]]
    reference = REFERENCE.read_text()
    assert len({rule["alert"] for rule in rules}) == len(rules) >= 10
    for rule in rules:
        named = re.findall(r"replicator_\w+", rule["expr"])
        assert named, rule["alert"]
        assert set(named) <= set(known), rule["alert"]
        used = set(re.findall(r"\$labels\.(\w+)", rule["annotations"]["summary"])) - {"instance"}
        assert used <= known[named[0]], rule["alert"]
        assert (ROOT / rule["annotations"]["runbook"]).is_file(), rule["alert"]
        assert rule["labels"]["severity"] in ("warning", "critical")
        assert f"`{rule['alert']}`" in reference


def test_alert_rules_cover_what_must_wake_somebody() -> None:
    text = RULES.read_text()
    for what in ("rpo_seconds", "journal_used_bytes", "inconsistent", "degraded", "halted"):
        assert what in text


@pytest.mark.parametrize("text", ["9700", ":9700", "127.0.0.1", "127.0.0.1:x", "h:99999", "h:-1"])
def test_metrics_bad_address_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="expected ADDRESS:PORT"):
        parse_listen(text)


def test_metrics_are_served_over_http() -> None:
    from prometheus_client import start_http_server

    class Collector:
        def collect(self) -> list[Metric]:
            return families([STATUS])

    registry = CollectorRegistry(auto_describe=False)
    registry.register(Collector())
    server, thread = start_http_server(0, "127.0.0.1", registry)
    try:
        url = f"http://127.0.0.1:{server.server_port}/metrics"
        with urllib.request.urlopen(url, timeout=20) as answer:
            assert b"replicator_lag_seconds{" in answer.read()
    finally:
        threading.Thread(target=server.shutdown).start()
        thread.join(20)

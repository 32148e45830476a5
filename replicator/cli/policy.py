"""replicatorctl policy: what an interval policy would do, before it is trusted."""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import msgspec

from replicator.cli.node import (
    add_group_flag,
    add_topology_flags,
    find_node,
    wants_json,
)
from replicator.cli.output import print_json, print_table
from replicator.cli.policy_model import Moment, Outcome, Surroundings, simulate
from replicator.cli.policy_picture import draw
from replicator.cli.workload import GENERATED, load_workload
from replicator.codec.section import Section
from replicator.codec.topology import AdaptiveInterval, FixedInterval
from replicator.codec.topology_interval import read_interval
from replicator.codec.yamltext import parse_yaml
from replicator.errors import ConfigError, DeviceUnusable, UsageError
from replicator.units import format_duration, format_size, parse_duration, parse_rate, parse_size

ROWS = 20
Policy = FixedInterval | AdaptiveInterval


class Summary(msgspec.Struct, frozen=True, kw_only=True):
    """What came out, in numbers."""

    seconds: float
    pulls: int
    link_bytes: int
    lag_p50_seconds: float
    lag_p99_seconds: float
    lag_worst_seconds: float
    source_fullest: float
    own_fullest: float
    hosts_held_seconds: float
    winners: dict[str, int]


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add ``policy simulate``."""
    policy = commands.add_parser("policy", help="try an interval policy on a workload")
    actions = policy.add_subparsers(title="actions", metavar="ACTION", required=True)
    parser = actions.add_parser("simulate", help="run a policy over a workload; touches nothing")
    add_topology_flags(parser)
    add_group_flag(parser)
    parser.add_argument(
        "--workload",
        required=True,
        metavar="FILE",
        help=f"a workload file, the output of pulls --json, or one of: {', '.join(GENERATED)}",
    )
    parser.add_argument(
        "--policy",
        metavar="YAML",
        help="what the topology would say of a site, such as '{rpo: 5s}' or '{interval: {...}}'; "
        "left out: the policy of this site",
    )
    parser.add_argument("--link", default="1Gbit", metavar="RATE", help="of the link (%(default)s)")
    parser.add_argument("--delay", default="1ms", help="of the link, one way (%(default)s)")
    parser.add_argument("--journal", default="1GiB", metavar="SIZE", help="each (%(default)s)")
    parser.add_argument(
        "--restore", default="800Mbit", metavar="RATE", help="pace of restore (%(default)s)"
    )
    parser.add_argument("--svg", metavar="FILE", help="draw interval, lag and fills")
    parser.set_defaults(run=run_simulate)


def run_simulate(arguments: argparse.Namespace) -> int:
    """Simulate, print the table or JSON, draw."""
    workload = load_workload(arguments.workload)
    policy = _policy(arguments)
    size = int(_given(arguments, "journal", parse_size))
    around = Surroundings(
        link_bytes_per_second=_given(arguments, "link", parse_rate),
        delay_seconds=_given(arguments, "delay", parse_duration),
        source_ring_bytes=size,
        own_ring_bytes=size,
        restore_bytes_per_second=_given(arguments, "restore", parse_rate),
    )
    if min(around.link_bytes_per_second, around.restore_bytes_per_second, size) <= 0:
        raise UsageError("--link, --restore and --journal must be more than 0")
    outcome = simulate(policy, workload, around)
    if arguments.svg:
        _write(
            arguments.svg, draw(outcome, f"{Path(arguments.workload).stem}: {_describe(policy)}")
        )
    if wants_json(arguments):
        print_json(_summary(outcome))
        return 0
    print(f"policy: {_describe(policy)}")
    print()
    print_table(_TITLES, [_row(moments) for moments in _stretches(outcome)])
    print()
    for line in _remarks(_summary(outcome)):
        print(line)
    return 0


def _given(arguments: argparse.Namespace, name: str, parse: Callable[[str], float]) -> float:
    try:
        return parse(getattr(arguments, name))
    except ValueError as error:
        raise UsageError(f"--{name}: {error}") from error


def _policy(arguments: argparse.Namespace) -> Policy:
    if arguments.policy is None:
        node = find_node(arguments)
        part = node.group.site(node.site.name)
        if part.upstream is None or part.sync:
            raise UsageError(f"site {part.name} does not pull; name another with --site")
        return part.interval
    content, violations = parse_yaml(arguments.policy)
    section = Section(content, "", violations)
    section.expect(("interval", "rpo"))
    policy, _ = read_interval(section)
    if violations:
        raise ConfigError("--policy", violations)
    return policy


def _describe(policy: Policy) -> str:
    if isinstance(policy, FixedInterval):
        return f"every {format_duration(policy.seconds)}"
    shortest, longest = format_duration(policy.min_seconds), format_duration(policy.max_seconds)
    said = f"{', '.join(policy.inputs) or 'rpo alone'}, {shortest} to {longest}"
    return said if policy.rpo_seconds is None else f"{said}, rpo {policy.rpo_seconds:g} s"


_TITLES = (
    "FROM",
    "PULLS",
    "RECORDS",
    "BYTES",
    "INTERVAL",
    "WORST LAG",
    "SOURCE",
    "OWN JOURNAL",
    "LOAD",
    "WON MOST",
)


def _stretches(outcome: Outcome) -> list[list[Moment]]:
    """Return the pulls in up to ROWS stretches of equal time; none is empty."""
    stretches: list[list[Moment]] = [[] for _ in range(ROWS)]
    for moment in outcome.moments:
        at = int(moment.at / max(outcome.seconds, 1e-9) * ROWS)
        stretches[min(ROWS - 1, at)].append(moment)
    return [stretch for stretch in stretches if stretch]


def _row(moments: list[Moment]) -> list[str]:
    intervals = sorted(moment.decision.seconds for moment in moments)
    winners = Counter(moment.decision.winner for moment in moments)
    return [
        format_duration(moments[0].at),
        str(len(moments)),
        str(sum(moment.records for moment in moments)),
        format_size(sum(moment.bytes for moment in moments)),
        format_duration(intervals[len(intervals) // 2]),
        format_duration(max(moment.lag_seconds for moment in moments)),
        f"{max(moment.source for moment in moments):.0%}",
        f"{max(moment.own for moment in moments):.0%}",
        f"{max(moment.load for moment in moments):.0%}",
        winners.most_common(1)[0][0],
    ]


def _summary(outcome: Outcome) -> Summary:
    return Summary(
        seconds=round(outcome.seconds, 3),
        pulls=len(outcome.moments),
        link_bytes=int(outcome.link_bytes),
        lag_p50_seconds=round(outcome.lag_percentile(0.5), 3),
        lag_p99_seconds=round(outcome.lag_percentile(0.99), 3),
        lag_worst_seconds=round(outcome.worst_lag_seconds, 3),
        source_fullest=round(max(moment.source for moment in outcome.moments), 4),
        own_fullest=round(max(moment.own for moment in outcome.moments), 4),
        hosts_held_seconds=round(outcome.held_seconds, 3),
        winners=dict(Counter(moment.decision.winner for moment in outcome.moments).most_common()),
    )


def _remarks(summary: Summary) -> list[str]:
    winners = ", ".join(f"{name} {count}" for name, count in summary.winners.items())
    held = format_duration(summary.hosts_held_seconds)
    return [
        f"{summary.pulls} pulls in {format_duration(summary.seconds)}, "
        f"{format_size(summary.link_bytes)} over the link; won: {winners}",
        f"lag: half {format_duration(summary.lag_p50_seconds)}, "
        f"99 % {format_duration(summary.lag_p99_seconds)}, "
        f"worst {format_duration(summary.lag_worst_seconds)}",
        f"fullest: source {summary.source_fullest:.0%}, own journal {summary.own_fullest:.0%}"
        + (f"; hosts were held for {held}" if summary.hosts_held_seconds else ""),
    ]


def _write(path: str, text: str) -> None:
    try:
        Path(path).write_text(text)
    except OSError as error:
        raise DeviceUnusable(f"{path}: cannot be written: {error.strerror}") from error

"""replicatorctl check: named checks with hints; exit 0, 1 or 2 as monitoring plugins have it."""

from __future__ import annotations

import argparse
import os

from replicator.cli.checks import Bounds, Check, Verdict, check_group, worst
from replicator.cli.node import Node, add_group_flag, add_topology_flags, find_node, wants_json
from replicator.cli.output import print_json
from replicator.cli.status import fetch_status
from replicator.cli.target import add_secrets_flag, wanted_and_lio
from replicator.errors import TowlineError, UsageError
from replicator.target.plan import compute_plan
from replicator.units import parse_duration


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add ``check``."""
    parser = commands.add_parser("check", help="run the named checks (exit 0, 1, 2)")
    add_topology_flags(parser)
    add_group_flag(parser)
    parser.add_argument("--lag-warning", metavar="DURATION", default="60s")
    parser.add_argument("--lag-failed", metavar="DURATION", default="10min")
    add_secrets_flag(parser)
    parser.set_defaults(run=run_check)


def run_check(arguments: argparse.Namespace) -> int:
    """Print ``name: OK|WARNING|FAILED`` for each check and return the worst as exit code."""
    node = find_node(arguments)
    bounds = Bounds(
        warning_seconds=_seconds("--lag-warning", arguments.lag_warning),
        failed_seconds=_seconds("--lag-failed", arguments.lag_failed),
    )
    try:
        status, unreachable = fetch_status(node)
    except TowlineError as error:
        raise TowlineError(f"cannot check group {node.group.name}: {error}") from error
    checks = check_group(status, unreachable, bounds)
    if node.site.devices.kind == "lvm" and os.geteuid() == 0:
        checks.append(_check_target(node, arguments.secrets))
    if wants_json(arguments):
        print_json(
            {
                "schema": 1,
                "group": status.group,
                "site": status.site,
                "verdict": worst(checks).name,
                "checks": [{**_fields(check), "verdict": check.verdict.name} for check in checks],
            }
        )
    else:
        for check in checks:
            hint = f" ({check.hint})" if check.hint else ""
            print(f"{check.name}: {check.verdict.name}: {check.text}{hint}")
    return int(worst(checks))


def _check_target(node: Node, secrets_path: str) -> Check:
    """Compare LIO, attribute by attribute, with what it should hold."""
    try:
        wanted, lio = wanted_and_lio(node.topology, node.site, secrets_path)
        steps = compute_plan(wanted, lio.read())
    except TowlineError as error:
        return Check("target", Verdict.WARNING, f"cannot be compared: {error}")
    if steps:
        text = f"LIO differs in {len(steps)} places, first: {steps[0].line()}"
        return Check("target", Verdict.FAILED, text, "replicatorctl target plan, then apply")
    return Check("target", Verdict.OK, "LIO holds what it should")


def _fields(check: Check) -> dict[str, str]:
    return {"name": check.name, "text": check.text, "hint": check.hint}


def _seconds(flag: str, text: str) -> float:
    try:
        return parse_duration(text)
    except ValueError as error:
        raise UsageError(f"{flag}: {error}") from error

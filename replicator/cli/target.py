"""replicatorctl target: what LIO should export at this site, the difference, and making it so."""

from __future__ import annotations

import argparse
import contextlib
import os
from collections.abc import Sequence
from pathlib import Path

from replicator.cli.node import add_topology_flags, site_name, topology_path, wants_json
from replicator.cli.output import print_json, print_note
from replicator.codec import naming
from replicator.codec.page import OwnerBody
from replicator.codec.target_tree import Tree
from replicator.codec.topology import Group, Site, Topology
from replicator.errors import TowlineError
from replicator.journal.journal import FENCED
from replicator.journal.pages import read_statement
from replicator.seams.filedevice import DirectDevice
from replicator.seams.lio import LioConfiguration
from replicator.seams.nodefiles import read_topology
from replicator.seams.secretsfile import read_chap_secrets
from replicator.target.apply import TargetSeam, apply_plan, confirm
from replicator.target.plan import Step, compute_plan
from replicator.target.wanted import ChapSecret, wanted_tree


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add ``target`` with plan and apply."""
    target = commands.add_parser("target", help="export this site's journals and volumes by LIO")
    inside = target.add_subparsers(metavar="COMMAND", required=True)
    plan = inside.add_parser("plan", help="show what apply would change")
    plan.set_defaults(run=run_plan)
    apply = inside.add_parser("apply", help="make LIO what the topology and the journals say")
    apply.set_defaults(run=run_apply)
    for parser in (plan, apply):
        add_topology_flags(parser)
        add_secrets_flag(parser)


def add_secrets_flag(parser: argparse.ArgumentParser) -> None:
    """Add where the CHAP secrets are."""
    parser.add_argument(
        "--secrets",
        metavar="FILE",
        default=os.environ.get("TOWLINE_SECRETS", naming.DEFAULT_SECRETS_PATH),
        help=f"CHAP secrets (TOWLINE_SECRETS, else {naming.DEFAULT_SECRETS_PATH})",
    )


def run_plan(arguments: argparse.Namespace) -> int:
    """Print the steps that apply would take; nothing is changed."""
    wanted, seam = _prepare(arguments)
    steps = compute_plan(wanted, seam.read()) if seam else []
    _report(steps, wants_json(arguments), "to do")
    return 0


def run_apply(arguments: argparse.Namespace) -> int:
    """Take the steps, then read LIO again and make sure that nothing differs."""
    wanted, seam = _prepare(arguments)
    steps: Sequence[Step] = []
    if seam is not None:
        steps = compute_plan(wanted, seam.read())
        apply_plan(steps, seam)
        confirm(wanted, seam)
    _report(steps, wants_json(arguments), "done")
    return 0


def _prepare(arguments: argparse.Namespace) -> tuple[Tree, TargetSeam | None]:
    """Return what LIO should hold, and LIO (None at a site that keeps files and exports none)."""
    topology = read_topology(topology_path(arguments))
    site = topology.site(site_name(arguments))
    if site.devices.kind != "lvm":
        print_note(f"site {site.name} keeps its journals in files: it exports nothing by LIO")
        return {}, None
    return wanted_and_lio(topology, site, arguments.secrets)


def wanted_and_lio(topology: Topology, site: Site, secrets_path: str) -> tuple[Tree, TargetSeam]:
    """Return what LIO should hold at an LVM site, and LIO; needs root for both."""
    secrets = {
        initiator: ChapSecret(password, mutual)
        for initiator, (password, mutual) in read_chap_secrets(secrets_path).items()
    }
    wanted = wanted_tree(
        topology,
        site.name,
        secrets,
        lambda group: serves_hosts(site, group),
        lambda group: ring_writer(site, group),
    )
    return wanted, LioConfiguration(topology.iqn_prefix, site.name)


def serves_hosts(site: Site, group: Group) -> bool:
    """Say whether the group's own journal at ``site`` states that hosts are served here.

    The journal decides, not the topology: what was promoted, demoted or fenced stays so over a
    reboot. A page that cannot be read means standby.
    """
    body = _own_page(site, group, "in standby")
    return body is not None and body.role == "primary" and not _closed(body)


def ring_writer(site: Site, group: Group) -> str | None:
    """Return which other site may write the group's ring at ``site``, as its own page states.

    Nobody once the ring was sealed or its writer fenced, nor while the page cannot be read.
    """
    body = _own_page(site, group, "not writable from afar")
    return None if body is None or _closed(body) else body.writer


def _closed(body: OwnerBody) -> bool:
    return body.sealed is not None or FENCED in body.marks


def _own_page(site: Site, group: Group, otherwise: str) -> OwnerBody | None:
    """Return what the group's journal states at ``site``; None is told with ``otherwise``."""
    path = naming.journal_path(site, group.name)
    try:
        with contextlib.closing(DirectDevice(Path(path), writable=False)) as device:
            body = read_statement(device).newer.body
    except TowlineError as error:
        print_note(f"group {group.name} {otherwise}: {error}")
        return None
    if (body.group, body.site) != (group.name, site.name):
        print_note(f"group {group.name} {otherwise}: {path} is of {body.group} at {body.site}")
        return None
    return body


def _report(steps: Sequence[Step], as_json: bool, participle: str) -> None:
    if as_json:
        print_json({"changed": bool(steps), "steps": [step.as_json() for step in steps]})
        return
    for step in steps:
        print(step.line())
    noun = "step" if len(steps) == 1 else "steps"
    print(f"{len(steps)} {noun} {participle}" if steps else "nothing to change")

"""``python3 -m tools.lab``: the lab's machines without Ansible."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from . import cables, description, image, power, reach
from .errors import LabError
from .places import Places
from .tour import run_tour

BOOT_LIMIT_SECONDS = 600.0


def main(arguments: list[str] | None = None) -> int:
    """Run one command; return 0, or 1 after a line that says what is wrong."""
    options = _parse(arguments)
    project = Path(__file__).resolve().parents[2]
    try:
        return int(options.act(options, description.load(project), Places(project)) or 0)
    except LabError as error:
        print(f"lab: {error}", file=sys.stderr)
        return 1


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="lab", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    add = commands.add_parser("image", help="build the image or find it in the cache")
    add.set_defaults(act=_image)
    add = commands.add_parser("up", help="start machines and wait for ssh")
    add.add_argument("machines", nargs="*", help="all, if none is named")
    add.set_defaults(act=_up)
    add = commands.add_parser("stop", help="end machines as if their power failed")
    add.add_argument("machines", nargs="*", help="all, if none is named")
    add.set_defaults(act=_stop)
    add = commands.add_parser("down", help="end all machines and delete their state")
    add.set_defaults(act=_down)
    add = commands.add_parser("list", help="show machines, ports and pids")
    add.set_defaults(act=_list)
    add = commands.add_parser("tour", help="all of make lab: up, provision, write, kill, verify")
    add.set_defaults(act=_tour)
    add = commands.add_parser("ssh", help="run ssh to a machine")
    add.add_argument("machine")
    add.add_argument("words", nargs=argparse.REMAINDER)
    add.set_defaults(act=_ssh)
    for verb, up in (("cut", False), ("heal", True)):
        add = commands.add_parser(verb, help=f"{verb} a cable, such as a-b")
        add.add_argument("cable")
        add.set_defaults(act=_cable, up=up)
    return parser.parse_args(arguments)


def _image(options: argparse.Namespace, lab: description.Lab, places: Places) -> None:
    places.make()
    found = image.cached(places.cache) or image.build(places.cache)
    print(f"{found.folder} kernel {found.kernel_version}")


def _up(options: argparse.Namespace, lab: description.Lab, places: Places) -> None:
    places.make()
    found = image.cached(places.cache) or image.build(places.cache)
    reach.write_ssh_files(lab, places)
    machines = [lab.machine(name) for name in options.machines] or list(lab.machines)
    for machine in machines:
        power.start(lab, machine, found, places)
    for machine in machines:
        seconds = reach.wait_for_ssh(places, machine, BOOT_LIMIT_SECONDS)
        print(f"{machine.name}: ssh -F {places.ssh_config} {machine.name} ({seconds:.0f} s)")


def _stop(options: argparse.Namespace, lab: description.Lab, places: Places) -> None:
    for name in options.machines or [machine.name for machine in lab.machines]:
        power.stop(places, lab.machine(name).name)


def _down(options: argparse.Namespace, lab: description.Lab, places: Places) -> None:
    power.remove(lab, places)


def _list(options: argparse.Namespace, lab: description.Lab, places: Places) -> None:
    for machine in lab.machines:
        pid = power.running_pid(places, machine.name)
        print(f"{machine.name:8} {machine.address:16} port {machine.ssh_port} pid {pid or '-'}")


def _tour(options: argparse.Namespace, lab: description.Lab, places: Places) -> None:
    run_tour(places.project)


def _ssh(options: argparse.Namespace, lab: description.Lab, places: Places) -> None:
    command = ["ssh", "-F", str(places.ssh_config), lab.machine(options.machine).name]
    os.execvp("ssh", [*command, *options.words])


def _cable(options: argparse.Namespace, lab: description.Lab, places: Places) -> None:
    cables.set_cable(lab, places, options.cable, options.up)


if __name__ == "__main__":
    sys.exit(main())

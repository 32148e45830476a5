"""The machines and cables of a lab, as ``inventory/lab/group_vars/all/machines.yml`` says them."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from .errors import LabError

UNITS = {"MiB": 1 << 20, "GiB": 1 << 30}


@dataclass(frozen=True)
class Disk:
    """One disk of a machine; the name is its serial in the guest (``virtio-NAME``)."""

    name: str
    size_bytes: int


@dataclass(frozen=True)
class Cable:
    """A point-to-point link between two machines; ``number`` makes its MAC addresses."""

    name: str
    ends: tuple[str, str]
    number: int

    def other_end(self, machine: str) -> str:
        return self.ends[1] if self.ends[0] == machine else self.ends[0]

    def mac(self, machine: str) -> str:
        return f"52:54:00:54:{self.number:02x}:{self.ends.index(machine) + 1:02x}"


@dataclass(frozen=True)
class Machine:
    """One virtual machine."""

    name: str
    number: int
    address: str
    ssh_port: int
    memory_mib: int
    disks: tuple[Disk, ...]


@dataclass(frozen=True)
class Lab:
    """All machines and cables."""

    machines: tuple[Machine, ...]
    cables: tuple[Cable, ...]

    def machine(self, name: str) -> Machine:
        for machine in self.machines:
            if machine.name == name:
                return machine
        raise LabError(f"no machine {name}", f"there are {[each.name for each in self.machines]}")

    def cable(self, name: str) -> Cable:
        for cable in self.cables:
            if name in (cable.name, "-".join(reversed(cable.ends))):
                return cable
        raise LabError(f"no cable {name}", f"there are {[each.name for each in self.cables]}")

    def cables_of(self, machine: str) -> tuple[Cable, ...]:
        return tuple(cable for cable in self.cables if machine in cable.ends)


def size_in_bytes(text: str) -> int:
    """Read ``512MiB`` or ``2GiB``."""
    factor = UNITS.get(text[-3:])
    if factor is None or not text[:-3].isdigit():
        raise LabError(f"size {text!r} is not like 512MiB or 2GiB")
    return int(text[:-3]) * factor


def parse(settings: Mapping[str, Any]) -> Lab:
    """Build the description from the inventory's variables (the keys named ``lab_...``)."""
    machines = tuple(
        Machine(
            name=name,
            number=number,
            address=entry["address"],
            ssh_port=int(settings["lab_ssh_port_base"]) + number,
            memory_mib=int(entry.get("memory_mib", settings["lab_memory_mib"])),
            disks=tuple(
                Disk(disk, size_in_bytes(size)) for disk, size in entry.get("disks", {}).items()
            ),
        )
        for number, (name, entry) in enumerate(settings["lab_machines"].items(), start=1)
    )
    names = {machine.name for machine in machines}
    cables = []
    for number, name in enumerate(settings["lab_cables"], start=1):
        first, _, second = name.partition("-")
        if {first, second} - names:
            raise LabError(f"cable {name} names a machine that is not in lab_machines")
        cables.append(Cable(name, (first, second), number))
    return Lab(machines, tuple(cables))


def load(project: Path) -> Lab:
    """Read the lab of this project's own inventory."""
    text = (project / "inventory/lab/group_vars/all/machines.yml").read_text()
    settings = yaml.safe_load(text)
    base = os.environ.get("TOWLINE_LAB_PORT")
    return parse(settings | ({"lab_ssh_port_base": base} if base else {}))

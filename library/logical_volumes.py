#!/usr/bin/python
"""Ansible module: a volume group and its logical volumes, which never destroys what it finds."""

from __future__ import annotations

import json
import os
from typing import Any

from ansible.module_utils.basic import AnsibleModule

DOCUMENTATION = r"""
module: logical_volumes
short_description: Create a volume group and logical volumes, and refuse anything that is not blank
description:
  - Creates what is missing. Never removes, shrinks, grows or reuses anything.
  - In safe mode a device with any signature, partition, holder or nonzero first MiB is refused.
options:
  volume_group: {description: The name of the volume group., type: str, required: true}
  devices: {description: Whole devices for a new volume group., type: list, elements: path}
  volumes:
    description: Logical volumes with name and size_bytes.
    type: list
    elements: dict
    required: true
  safe_mode: {description: Refuse devices that are not blank., type: bool, default: true}
"""

PROBED_BYTES = 1 << 20


class Refusal(Exception):
    """What is there does not allow what is wanted."""


class VolumeGroup:
    """The commands of LVM, for one volume group."""

    def __init__(self, module: AnsibleModule, name: str) -> None:
        self._module = module
        self.name = name

    def run(self, *command: str) -> str:
        """Run a command that must succeed and return its output."""
        code, output, complaint = self._module.run_command(list(command))
        if code != 0:
            raise Refusal(f"{command[0]} failed: {complaint.strip() or output.strip()}")
        return str(output)

    def report(self, program: str, fields: str) -> list[dict[str, str]]:
        """Return the rows of an LVM report."""
        command = [program, "--reportformat", "json", "--units", "b", "--nosuffix", "-o", fields]
        rows = json.loads(self.run(*command))["report"][0][program.removesuffix("s")]
        return list(rows)

    def exists(self) -> bool:
        return any(row["vg_name"] == self.name for row in self.report("vgs", "vg_name"))

    def volumes(self) -> dict[str, int]:
        """Return the sizes in bytes of the logical volumes that exist."""
        rows = self.report("lvs", "vg_name,lv_name,lv_size")
        return {r["lv_name"]: int(r["lv_size"]) for r in rows if r["vg_name"] == self.name}

    def extent_bytes(self) -> int:
        rows = self.report("vgs", "vg_name,vg_extent_size")
        return next(int(r["vg_extent_size"]) for r in rows if r["vg_name"] == self.name)


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "volume_group": {"type": "str", "required": True},
            "devices": {"type": "list", "elements": "path", "default": []},
            "volumes": {"type": "list", "elements": "dict", "required": True},
            "safe_mode": {"type": "bool", "default": True},
        },
        supports_check_mode=True,
    )
    group = VolumeGroup(module, module.params["volume_group"])
    try:
        module.exit_json(**converge(module, group))
    except Refusal as refusal:
        module.fail_json(msg=str(refusal))


def converge(module: AnsibleModule, group: VolumeGroup) -> dict[str, Any]:
    """Create what is missing; return what that was."""
    created = []
    present: dict[str, int] = {}
    if group.exists():
        present = group.volumes()
        refuse_other_sizes(group, present, module.params["volumes"])
    else:
        created.append(f"volume group {group.name}")
        create_group(module, group)
    for volume in module.params["volumes"]:
        if volume["name"] in present:
            continue
        created.append(f"logical volume {group.name}/{volume['name']} {volume['size_bytes']} B")
        if not module.check_mode:
            size = f"{int(volume['size_bytes'])}b"
            group.run(
                "lvcreate", "-qq", "--yes", "-W", "y", "-L", size, "-n", volume["name"], group.name
            )
    difference = {"before": "", "after": "".join(f"{line}\n" for line in created)}
    return {"changed": bool(created), "created": created, "diff": difference}


def create_group(module: AnsibleModule, group: VolumeGroup) -> None:
    """Make the volume group on the named devices, each of which must be blank in safe mode."""
    devices = module.params["devices"]
    if not devices:
        raise Refusal(
            f"volume group {group.name} does not exist and no devices are named for it: "
            "create it, or set volumes_devices"
        )
    for device in devices:
        if not os.path.exists(device):
            raise Refusal(f"{device} does not exist")
        if module.params["safe_mode"]:
            refuse_unless_blank(module, device)
    if not module.check_mode:
        force = [] if module.params["safe_mode"] else ["-ff"]
        group.run("pvcreate", "-qq", "--yes", *force, *devices)
        group.run("vgcreate", "-qq", group.name, *devices)


def refuse_unless_blank(module: AnsibleModule, device: str) -> None:
    """Refuse a device on which anything is, or which something holds."""
    name = os.path.basename(os.path.realpath(device))
    holders = f"/sys/class/block/{name}/holders"
    if os.path.isdir(holders) and os.listdir(holders):
        raise Refusal(f"{device} is held by {', '.join(os.listdir(holders))}")
    code, signatures, _ = module.run_command(["wipefs", "--noheadings", "--parsable", device])
    if code != 0 or signatures.strip():
        found = ", ".join(line.split(",")[-1] for line in signatures.splitlines()) or "unreadable"
        raise Refusal(
            f"{device} is not blank ({found}); safe mode leaves it alone: name another device, or "
            f"wipe it yourself with wipefs --all {device}"
        )
    with open(device, "rb") as file:
        if any(file.read(PROBED_BYTES)):
            raise Refusal(f"{device} is not blank: its first MiB holds bytes other than zero")


def refuse_other_sizes(
    group: VolumeGroup, present: dict[str, int], wanted: list[dict[str, Any]]
) -> None:
    """Refuse a volume whose size is not the topology's (rounded up to a whole extent)."""
    extent = group.extent_bytes()
    for volume in wanted:
        size = -(-int(volume["size_bytes"]) // extent) * extent
        found = present.get(volume["name"], size)
        if found != size:
            raise Refusal(
                f"{group.name}/{volume['name']} has {found} bytes, the topology says {size}; "
                "volumes are not resized in this release"
            )


if __name__ == "__main__":
    main()

#!/usr/bin/python
"""Ansible module: one machine of the VM lab, on the controller."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule

DOCUMENTATION = r"""
module: lab_machine
short_description: Start, await or stop one machine of the lab
description:
  - Runs on the controller. Starting an already running machine changes nothing.
  - Stopping ends QEMU as a power failure would.
options:
  project: {description: The project's folder., type: path, required: true}
  name: {description: The machine., type: str, required: true}
  state:
    description: C(started) returns at once, C(reachable) waits until a login works.
    choices: [started, reachable, stopped]
    default: started
    type: str
  limit_seconds: {description: How long C(reachable) waits., type: float, default: 600}
"""

RETURN = r"""
seconds: {description: How long it took., returned: reachable, type: float}
"""


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "project": {"type": "path", "required": True},
            "name": {"type": "str", "required": True},
            "state": {"choices": ["started", "reachable", "stopped"], "default": "started"},
            "limit_seconds": {"type": "float", "default": 600.0},
        },
        supports_check_mode=True,
    )
    project = Path(module.params["project"]).resolve()
    sys.path.insert(0, str(project))
    from tools.lab.errors import LabError

    try:
        module.exit_json(**reach_state(module.params, project, module.check_mode))
    except LabError as error:
        module.fail_json(msg=str(error))


def reach_state(options: dict[str, Any], project: Path, check: bool) -> dict[str, Any]:
    """Bring the machine into the wanted state and say what changed."""
    from tools.lab import description, image, power, reach
    from tools.lab.errors import LabError
    from tools.lab.places import Places

    places = Places(project)
    lab = description.load(project)
    machine = lab.machine(options["name"])
    runs = power.running_pid(places, machine.name) is not None
    if options["state"] == "reachable":
        seconds = 0.0 if check else reach.wait_for_ssh(places, machine, options["limit_seconds"])
        return {"changed": False, "seconds": round(seconds, 1)}
    if check:
        return {"changed": runs == (options["state"] == "stopped")}
    if options["state"] == "stopped":
        return {"changed": power.stop(places, machine.name)}
    found = image.cached(places.cache)
    if found is None:
        raise LabError("the image is not in the cache", "run playbooks/lab.yml from its beginning")
    return {"changed": power.start(lab, machine, found, places)}


if __name__ == "__main__":
    main()

#!/usr/bin/python
"""Ansible module: all instances of one systemd template unit in one go."""

from __future__ import annotations

import glob
import os
from typing import Any

from ansible.module_utils.basic import AnsibleModule

DOCUMENTATION = r"""
module: unit_instances
short_description: Enable and start the instances of a template that are wanted, end all others
description:
  - One run of a module costs seconds on a slow node, and instances that start together do not wait
    for each other.
  - Instances that are enabled or run and are not listed are stopped and disabled.
options:
  template: {description: The template's name without C(@.service)., type: str, required: true}
  instances:
    description: What is to be enabled and to run.
    type: list
    elements: str
    required: true
  restarted: {description: Those to start anew if they run., type: list, elements: str}
  reload: {description: Read unit files again first., type: bool, default: false}
  ends_only: {description: End the others and start nothing yet., type: bool, default: false}
"""

RETURN = r"""
started: {description: Instances that were started or started anew., returned: success, type: list}
ended: {description: Instances that were stopped and disabled., returned: success, type: list}
"""

WANTS = "/etc/systemd/system/*.wants"


class Template:
    """The commands of systemd, for the instances of one template."""

    def __init__(self, module: AnsibleModule, name: str) -> None:
        self._module = module
        self.name = name

    def unit(self, instance: str) -> str:
        return f"{self.name}@{instance}.service"

    def systemctl(self, *words: str) -> str:
        """Run systemctl, which must succeed."""
        code, output, complaint = self._module.run_command(["systemctl", *words])
        if code != 0:
            lines = (complaint.strip() or output.strip() or "no reason given").splitlines()
            self._module.fail_json(msg=f"systemctl {' '.join(words)}: {lines[-1]}", rc=code)
        return str(output)

    def enabled(self) -> set[str]:
        """Return the instances that come back at boot."""
        paths = glob.glob(os.path.join(WANTS, self.unit("*")))
        return {self._instance(os.path.basename(path)) for path in paths}

    def loaded(self) -> dict[str, str]:
        """Return the instances that systemd knows, and what each one's state is."""
        words = ["list-units", "--all", "--plain", "--no-legend", "--full", self.unit("*")]
        rows = [line.split() for line in self.systemctl(*words).splitlines()]
        return {self._instance(row[0]): row[2] for row in rows if len(row) > 2}

    def _instance(self, unit: str) -> str:
        return unit.removeprefix(f"{self.name}@").removesuffix(".service")


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "template": {"type": "str", "required": True},
            "instances": {"type": "list", "elements": "str", "required": True},
            "restarted": {"type": "list", "elements": "str", "default": []},
            "reload": {"type": "bool", "default": False},
            "ends_only": {"type": "bool", "default": False},
        },
        supports_check_mode=True,
    )
    module.exit_json(
        **converge(Template(module, module.params["template"]), module.params, module.check_mode)
    )


def converge(template: Template, options: dict[str, Any], check: bool) -> dict[str, Any]:
    """Bring the instances to what is wanted; the listed order is the order of the results."""
    wanted, enabled, states = options["instances"], template.enabled(), template.loaded()
    active = {name for name, state in states.items() if state == "active"}
    running = {name for name, state in states.items() if state not in ("inactive", "failed")}
    enable = [name for name in wanted if name not in enabled]
    anew = [name for name in wanted if name in active and name in options["restarted"]]
    start = [name for name in wanted if name not in active]
    ended = sorted((enabled | running) - set(wanted))
    if options["ends_only"]:
        enable, anew, start = [], [], []
    if not check:
        if options["reload"]:
            template.systemctl("daemon-reload")
        for words, names in (
            (("disable", "--now"), ended),
            (("enable",), enable),
            (("restart",), anew),
            (("start",), start),
        ):
            if names:
                template.systemctl(*words, *(template.unit(name) for name in names))
    lines = [f"end {name}" for name in ended] + [f"enable {name}" for name in enable]
    lines += [f"start {name}" for name in start] + [f"start {name} anew" for name in anew]
    return {
        "changed": bool(lines),
        "started": start + anew,
        "ended": ended,
        "diff": {"before": "", "after": "".join(f"{line}\n" for line in lines)},
    }


if __name__ == "__main__":
    main()

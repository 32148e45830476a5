#!/usr/bin/python
"""Ansible module: bring LIO's configuration to what ``replicatorctl target plan`` wants."""

from __future__ import annotations

import json
from typing import Any

from ansible.module_utils.basic import AnsibleModule

DOCUMENTATION = r"""
module: towline_target
short_description: Plan and apply a site's LIO configuration
description:
  - C(replicatorctl target) owns that configuration; this is its check, diff and apply for Ansible.
  - C(absent) removes all that is ours from LIO, and nothing else.
options:
  program: {description: The program., type: path, default: /usr/local/bin/replicatorctl}
  python: {description: Its interpreter., type: path, default: /opt/towline/venv/bin/python}
  state: {choices: [present, absent], default: present, type: str, description: What is wanted.}
  prefix: {description: The IQN prefix (C(absent) only)., type: str}
  site: {description: The site (C(absent) only)., type: str}
"""

REMOVAL = """
import json, sys
from replicator.seams.lio import LioConfiguration
from replicator.target.apply import apply_plan
from replicator.target.plan import compute_plan
seam = LioConfiguration(sys.argv[1], sys.argv[2])
steps = compute_plan({}, seam.read())
if sys.argv[3] == "apply":
    apply_plan(steps, seam)
print(json.dumps({"steps": [step.as_json() for step in steps]}))
"""


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "program": {"type": "path", "default": "/usr/local/bin/replicatorctl"},
            "python": {"type": "path", "default": "/opt/towline/venv/bin/python"},
            "state": {"choices": ["present", "absent"], "default": "present"},
            "prefix": {"type": "str"},
            "site": {"type": "str"},
        },
        required_if=[("state", "absent", ("prefix", "site"))],
        supports_check_mode=True,
    )
    if module.params["state"] == "absent":
        module.exit_json(**remove(module))
    module.exit_json(**converge(module))


def remove(module: AnsibleModule) -> dict[str, Any]:
    """Remove every backstore and target of ours."""
    options = module.params
    verb = "plan" if module.check_mode else "apply"
    command = [options["python"], "-c", REMOVAL, options["prefix"], options["site"], verb]
    code, output, complaint = module.run_command(command)
    if code != 0:
        module.fail_json(msg=(complaint.strip() or "no reason given").splitlines()[-1], rc=code)
    lines = "".join(f"{step['kind']} {step['path']}\n" for step in json.loads(output)["steps"])
    return {"changed": bool(lines), "diff": {"before": lines, "after": ""}}


def converge(module: AnsibleModule) -> dict[str, Any]:
    """Apply the plan if it holds any change."""
    changes = planned_changes(module)
    if changes and not module.check_mode:
        run(module, "apply")
        remaining = planned_changes(module)
        if remaining:
            module.fail_json(msg=f"applied, but not all took effect: {remaining}")
    return {
        "changed": bool(changes),
        "diff": {"before": "", "after": "".join(f"{change}\n" for change in changes)},
    }


def planned_changes(module: AnsibleModule) -> list[str]:
    """Return one line, without secrets, for each step that the plan holds."""
    signs = {"create": "+", "remove": "-", "set": "~"}
    steps = json.loads(run(module, "plan", "--json"))["steps"]
    return [
        f"{signs.get(step['verb'], step['verb'])} {step['kind']} {step['path']}: {step['value']}"
        for step in steps
    ]


def run(module: AnsibleModule, *words: str) -> str:
    """Run ``replicatorctl target``; its last line on failure is the module's message."""
    code, output, complaint = module.run_command([module.params["program"], "target", *words])
    if code != 0:
        lines = (complaint.strip() or output.strip() or f"exit code {code}").splitlines()
        module.fail_json(msg=f"replicatorctl target {words[0]}: {lines[-1]}", rc=code)
    return str(output)


if __name__ == "__main__":
    main()

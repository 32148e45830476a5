#!/usr/bin/python
"""Ansible module: a formatted journal on a volume that is blank, and on no other."""

from __future__ import annotations

from typing import Any

from ansible.module_utils.basic import AnsibleModule

DOCUMENTATION = r"""
module: towline_journal
short_description: Format a group's journal if its volume is blank
description:
  - A volume that holds a journal is left as it is; one that holds anything else is refused.
options:
  group: {description: The group., type: str, required: true}
  path: {description: The journal volume., type: path, required: true}
  program: {description: The program., type: path, default: /usr/local/bin/replicatorctl}
"""

PROBED_BYTES = 1 << 20


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "group": {"type": "str", "required": True},
            "path": {"type": "path", "required": True},
            "program": {"type": "path", "default": "/usr/local/bin/replicatorctl"},
        },
        supports_check_mode=True,
    )
    try:
        module.exit_json(**converge(module))
    except OSError as error:
        if module.check_mode:
            module.exit_json(changed=True, diff=difference(module))
        module.fail_json(msg=f"{module.params['path']}: {error.strerror}")


def converge(module: AnsibleModule) -> dict[str, Any]:
    """Format a blank volume; what else is on it, ``journal format`` itself refuses."""
    with open(module.params["path"], "rb") as volume:
        if any(volume.read(PROBED_BYTES)):
            return {"changed": False}
    if not module.check_mode:
        command = [module.params["program"], "journal", "format", "--group", module.params["group"]]
        code, output, complaint = module.run_command(command)
        if code != 0:
            lines = (complaint.strip() or output.strip() or f"exit code {code}").splitlines()
            module.fail_json(msg=lines[-1], rc=code)
    return {"changed": True, "diff": difference(module)}


def difference(module: AnsibleModule) -> dict[str, str]:
    return {"before": "", "after": f"journal of {module.params['group']}\n"}


if __name__ == "__main__":
    main()

#!/usr/bin/python
"""Ansible module: a virtual environment filled from a folder of wheels, without any network."""

from __future__ import annotations

import os
import sys
from typing import Any

from ansible.module_utils.basic import AnsibleModule

DOCUMENTATION = r"""
module: towline_environment
short_description: Install wheels from a folder into a virtual environment
description:
  - A stamp in the environment names the wheels that it was filled from; other wheels fill it anew.
options:
  path: {description: The environment., type: path, required: true}
  wheels: {description: A folder with all wheels., type: path, required: true}
  digest: {description: The name of exactly these wheels., type: str, required: true}
  requirement: {description: What to install., type: str, required: true}
"""

STAMP = "towline-wheels"


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "path": {"type": "path", "required": True},
            "wheels": {"type": "path", "required": True},
            "digest": {"type": "str", "required": True},
            "requirement": {"type": "str", "required": True},
        },
        supports_check_mode=True,
    )
    module.exit_json(**converge(module))


def converge(module: AnsibleModule) -> dict[str, Any]:
    """Fill the environment unless its stamp says that it holds these wheels."""
    options = module.params
    stamp = os.path.join(options["path"], STAMP)
    held = read(stamp)
    if held == options["digest"]:
        return {"changed": False}
    if not module.check_mode:
        fill(module)
        with open(stamp, "w", encoding="utf-8") as file:
            file.write(options["digest"])
    difference = {"before": f"wheels {held or 'none'}\n", "after": f"wheels {options['digest']}\n"}
    return {"changed": True, "diff": difference}


def read(path: str) -> str:
    """Return a file's text, or nothing."""
    try:
        with open(path, encoding="utf-8") as file:
            return file.read().strip()
    except OSError:
        return ""


def fill(module: AnsibleModule) -> None:
    """Create the environment and install; the running daemon keeps its loaded code."""
    options = module.params
    python = os.path.join(options["path"], "bin", "python")
    if not os.path.exists(python):
        run(module, sys.executable, "-m", "venv", options["path"])
    pip = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-index"]
    found = ["--find-links", options["wheels"], "--no-compile"]
    run(module, *pip, *found, options["requirement"])
    # The same version may have been built from other sources.
    run(module, *pip, *found, "--force-reinstall", "--no-deps", options["requirement"].split("[")[0])


def run(module: AnsibleModule, *command: str) -> None:
    code, output, complaint = module.run_command(list(command))
    if code != 0:
        reason = (complaint.strip() or output.strip() or "no reason given").splitlines()[-1]
        module.fail_json(msg=f"{' '.join(command[:4])}: {reason}")


if __name__ == "__main__":
    main()

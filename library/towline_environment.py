#!/usr/bin/python
"""Ansible module: a virtual environment filled from a tar file of wheels, without any network."""

from __future__ import annotations

import os
import sys
import tarfile
import tempfile
from typing import Any

from ansible.module_utils.basic import AnsibleModule

DOCUMENTATION = r"""
module: towline_environment
short_description: Install wheels into a virtual environment
description:
  - A stamp in the environment names the wheels that it was filled from; other wheels fill it anew.
options:
  path: {description: The environment., type: path, required: true}
  wheels: {description: A tar file with all wheels., type: path, required: true}
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
    """Create the environment and install; a running daemon keeps the code that it has loaded."""
    options = module.params
    python = os.path.join(options["path"], "bin", "python")
    if not os.path.exists(python):
        run(module, sys.executable, "-m", "venv", options["path"])
    with tempfile.TemporaryDirectory() as wheels:
        with tarfile.open(options["wheels"]) as tar:
            tar.extractall(wheels, filter="data")
        install(module, python, wheels)


def install(module: AnsibleModule, python: str, wheels: str) -> None:
    """Install what is missing, and the program itself even if its version did not change."""
    pip = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-index"]
    source = ["--find-links", wheels, "--no-compile"]
    requirement = module.params["requirement"]
    program = requirement.split("[")[0]
    run(module, *pip, *source, requirement)
    run(module, *pip, *source, "--force-reinstall", "--no-deps", program)


def run(module: AnsibleModule, *command: str) -> None:
    code, output, complaint = module.run_command(list(command))
    if code != 0:
        reason = (complaint.strip() or output.strip() or "no reason given").splitlines()[-1]
        module.fail_json(msg=f"{' '.join(command[:4])}: {reason}")


if __name__ == "__main__":
    main()

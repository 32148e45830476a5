#!/usr/bin/python
"""Ansible module: a virtual environment filled from a tar file of wheels, without any network."""

from __future__ import annotations

import glob
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
  program: {description: The wheel that is installed even if its version is there., type: str}
"""

STAMP = "towline-wheels"
# Of Debian's python3-pip-whl, which python3-venv brings.
PIP_WHEELS = "/usr/share/python-wheels/pip-*.whl"


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "path": {"type": "path", "required": True},
            "wheels": {"type": "path", "required": True},
            "digest": {"type": "str", "required": True},
            "program": {"type": "str", "default": "towline"},
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
    if not os.path.exists(os.path.join(options["path"], "bin", "python")):
        # pip is not needed inside: the system's own wheel of it installs, which is much faster.
        run(module, sys.executable, "-m", "venv", "--without-pip", options["path"])
    with tempfile.TemporaryDirectory() as folder:
        with tarfile.open(options["wheels"]) as tar:
            tar.extractall(folder)
        wheels = sorted(glob.glob(os.path.join(folder, "*.whl")))
        install(module, [wheel for wheel in wheels if is_wanted(options, wheel)])


def is_wanted(options: dict[str, Any], wheel: str) -> bool:
    """Tell whether a wheel must be installed: the program always, others if not there yet."""
    name, version = os.path.basename(wheel).split("-")[:2]
    there = os.path.join(options["path"], "lib", "python3.*", "site-packages")
    return name == options["program"] or not glob.glob(f"{there}/{name}-{version}.dist-info")


def install(module: AnsibleModule, wheels: list[str]) -> None:
    """Install exactly these wheels; the controller has resolved what depends on what."""
    python = os.path.join(module.params["path"], "bin", "python")
    pip = [python, glob.glob(PIP_WHEELS)[0] + "/pip", "install", "--quiet", "--no-index"]
    quick = ["--no-deps", "--no-compile", "--force-reinstall", "--disable-pip-version-check"]
    run(module, *pip, *quick, "--root-user-action=ignore", *wheels)
    # The sandboxed daemon cannot write these files itself.
    place = glob.glob(os.path.join(module.params["path"], "lib", "python3.*", "site-packages"))[0]
    packages = [os.path.join(place, name) for name in ("replicator", "msgspec", "yaml", "xxhash")]
    run(module, python, "-m", "compileall", "-q", *packages)


def run(module: AnsibleModule, *command: str) -> None:
    code, output, complaint = module.run_command(list(command))
    if code != 0:
        reason = (complaint.strip() or output.strip() or "no reason given").splitlines()[-1]
        module.fail_json(msg=f"{' '.join(command[:4])}: {reason}")


if __name__ == "__main__":
    main()

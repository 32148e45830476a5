#!/usr/bin/python
"""Ansible module: what all machines of the VM lab stand on (image, keys, secrets)."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule

DOCUMENTATION = r"""
module: lab_ground
short_description: Prepare the image, the ssh configuration and the secrets of the lab
description:
  - Runs on the controller. The image is built once for each version of its recipe.
  - The CHAP secrets are made once a lab, in a file that only its owner can read.
options:
  project: {description: The project's folder., type: path, required: true}
  topology: {description: The topology whose initiators get secrets., type: path, required: true}
  secrets: {description: The file of the secrets., type: path, required: true}
"""

RETURN = r"""
kernel: {description: The image's kernel package version., returned: success, type: str}
"""


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "project": {"type": "path", "required": True},
            "topology": {"type": "path", "required": True},
            "secrets": {"type": "path", "required": True, "no_log": False},
        },
        supports_check_mode=True,
    )
    project = Path(module.params["project"]).resolve()
    sys.path.insert(0, str(project))
    from replicator.errors import TowlineError
    from tools.lab.errors import LabError

    try:
        module.exit_json(**prepare(module.params, project, module.check_mode))
    except (LabError, TowlineError) as error:
        module.fail_json(msg=str(error))


def prepare(options: dict[str, Any], project: Path, check: bool) -> dict[str, Any]:
    """Make what is missing and say whether anything was."""
    from replicator.codec.naming import initiators
    from replicator.seams.nodefiles import read_topology
    from tools.lab import chap, description, image, programs, reach
    from tools.lab.places import Places

    places = Places(project)
    lab = description.load(project)
    names = sorted(initiators(read_topology(options["topology"])))
    found = image.cached(places.cache)
    if check:
        return {"changed": found is None, "kernel": found.kernel_version if found else ""}
    programs.require_programs()
    places.make()
    built = found or image.build(places.cache)
    changed = reach.write_ssh_files(lab, places)
    changed |= chap.ensure_secrets(Path(options["secrets"]), names)
    return {"changed": changed or found is None, "kernel": built.kernel_version}


if __name__ == "__main__":
    main()

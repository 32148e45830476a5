#!/usr/bin/python
"""Ansible module: several small text files in one go."""

from __future__ import annotations

import os
from typing import Any

from ansible.module_utils.basic import AnsibleModule

DOCUMENTATION = r"""
module: small_files
short_description: Write several small text files, each by rename
description:
  - One run of a module costs seconds on a slow node, so what belongs together is written together.
  - Folders that are missing are made. The diff is left out when C(secret) is true.
options:
  files:
    description: Path to content.
    type: dict
    required: true
  mode: {description: The mode of all of them., type: str, default: "0644"}
  secret: {description: Show no content., type: bool, default: false}
"""

RETURN = r"""
changed_files: {description: The paths that changed., returned: success, type: list}
"""


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "files": {"type": "dict", "required": True},
            "mode": {"type": "str", "default": "0644"},
            "secret": {"type": "bool", "default": False},
        },
        supports_check_mode=True,
    )
    try:
        module.exit_json(**converge(module.params, module.check_mode))
    except OSError as error:
        module.fail_json(msg=f"{error.filename}: {error.strerror}")


def converge(options: dict[str, Any], check: bool) -> dict[str, Any]:
    """Write what differs."""
    mode = int(options["mode"], 8)
    changed, differences = [], []
    for path, text in sorted(options["files"].items()):
        before, same_mode = read(path, mode)
        if before == text and same_mode:
            continue
        changed.append(path)
        shown = ("", "") if options["secret"] else (before or "", text)
        headers = {"before_header": path, "after_header": path}
        differences.append({"before": shown[0], "after": shown[1], **headers})
        if not check:
            write(path, text, mode)
    return {"changed": bool(changed), "changed_files": changed, "diff": differences}


def read(path: str, mode: int) -> tuple[str | None, bool]:
    """Return the file's text, or None, and whether it has the mode."""
    try:
        with open(path, encoding="utf-8") as file:
            return file.read(), os.fstat(file.fileno()).st_mode & 0o777 == mode
    except FileNotFoundError:
        return None, False


def write(path: str, text: str, mode: int) -> None:
    """Replace the file in one step."""
    os.makedirs(os.path.dirname(path), mode=0o755, exist_ok=True)
    temporary = f"{path}.{os.getpid()}.new"
    with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "w") as file:
        file.write(text)
        os.fchmod(file.fileno(), mode)
    os.rename(temporary, path)


if __name__ == "__main__":
    main()

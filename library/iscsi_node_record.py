#!/usr/bin/python
"""Ansible module: static open-iscsi node records, with CHAP both ways, as 0600 files."""

from __future__ import annotations

import os
import shutil
import subprocess
from typing import Any

from ansible.module_utils.basic import AnsibleModule

DOCUMENTATION = r"""
module: iscsi_node_record
short_description: Write the node records of this initiator, and remove those of other targets
description:
  - Writes the files of open-iscsi's database itself, so that no secret is on a command line.
  - With a mutual user and password the initiator insists that the target proves itself.
  - Records below C(prefix) that are not listed are removed, after their session has ended.
  - Records of other targets are not touched.
options:
  records:
    description: Targets with target, address, port and mutual_user.
    type: list
    elements: dict
    required: true
  prefix: {description: Only records of targets that begin so are removed., type: str}
  user: {description: The initiator's CHAP user., type: str, required: true}
  password: {description: The initiator's password., type: str, required: true}
  mutual_password: {description: What the targets prove., type: str, required: true}
  settings: {description: Further record lines (timeouts)., type: dict, default: {}}
  folder: {description: The database., type: path, default: /etc/iscsi/nodes}
"""

RETURN = r"""
changed_targets: {description: Targets whose record changed., returned: success, type: list}
"""

COMMON = {
    "node.tpgt": "-1",
    "node.startup": "manual",
    "node.leading_login": "No",
    "iface.iscsi_ifacename": "default",
    "iface.transport_name": "tcp",
    "node.discovery_type": "static",
    "node.session.nr_sessions": "1",
    "node.session.scan": "auto",
    "node.session.auth.authmethod": "CHAP",
    "node.session.auth.chap_algs": "SHA3-256,SHA256,MD5",
    "node.session.iscsi.InitialR2T": "No",
    "node.session.iscsi.ImmediateData": "Yes",
    "node.session.iscsi.FirstBurstLength": "262144",
    "node.session.iscsi.MaxBurstLength": "16776192",
    "node.conn[0].iscsi.MaxRecvDataSegmentLength": "262144",
    "node.conn[0].iscsi.HeaderDigest": "None",
    "node.conn[0].iscsi.DataDigest": "None",
}


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "records": {"type": "list", "elements": "dict", "required": True},
            "prefix": {"type": "str"},
            "user": {"type": "str", "required": True},
            "password": {"type": "str", "required": True, "no_log": True},
            "mutual_password": {"type": "str", "required": True, "no_log": True},
            "settings": {"type": "dict", "default": {}},
            "folder": {"type": "path", "default": "/etc/iscsi/nodes"},
        },
        supports_check_mode=True,
    )
    try:
        module.exit_json(**converge(module.params, module.check_mode))
    except OSError as error:
        module.fail_json(msg=f"{error.filename}: {error.strerror}")


def converge(options: dict[str, Any], check: bool) -> dict[str, Any]:
    """Write and remove records; return which targets changed, without any secret."""
    folder = options["folder"]
    changed, removed = [], []
    for record in options["records"]:
        path = os.path.join(folder, record["target"], f"{record['address']},{record['port']}")
        if write_private(path, render(record, options), check):
            changed.append(record["target"])
    listed = {record["target"] for record in options["records"]}
    for name in sorted(os.listdir(folder)) if os.path.isdir(folder) else []:
        if options["prefix"] and name.startswith(options["prefix"]) and name not in listed:
            removed.append(name)
            if not check:
                end_session(name)
                shutil.rmtree(os.path.join(folder, name))
    before = "".join(f"record of {name}\n" for name in removed)
    after = "".join(f"record of {name} (secrets not shown)\n" for name in changed)
    return {
        "changed": bool(changed or removed),
        "changed_targets": changed,
        "removed_targets": removed,
        "diff": {"before": before, "after": after},
    }


def end_session(target: str) -> None:
    """Log out and do not log in at the next boot; it takes the record, so it comes first."""
    unit = f"towline-session@{target}.service"
    subprocess.run(["systemctl", "disable", "--now", unit], capture_output=True)


def render(record: dict[str, Any], options: dict[str, Any]) -> str:
    """Return the text of a record."""
    lines = COMMON | {
        "node.name": record["target"],
        "node.conn[0].address": record["address"],
        "node.conn[0].port": str(record["port"]),
        "node.conn[0].startup": "manual",
        "node.session.auth.username": options["user"],
        "node.session.auth.password": options["password"],
        "node.session.auth.username_in": record["mutual_user"],
        "node.session.auth.password_in": options["mutual_password"],
    }
    lines |= {name: str(setting) for name, setting in options["settings"].items()}
    body = "".join(f"{name} = {setting}\n" for name, setting in lines.items())
    return f"# BEGIN RECORD 2.1.8\n{body}# END RECORD\n"


def write_private(path: str, text: str, check: bool) -> bool:
    """Write a file that only root reads, by rename; return whether its text or mode changed."""
    try:
        with open(path, encoding="utf-8") as file:
            same = file.read() == text and os.fstat(file.fileno()).st_mode & 0o777 == 0o600
    except FileNotFoundError:
        same = False
    if same or check:
        return not same
    os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
    # A name that begins so is not taken for a record while it is written.
    temporary = os.path.join("/etc/iscsi", f".record-{os.getpid()}")
    with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)
    os.rename(temporary, path)
    return True


if __name__ == "__main__":
    main()

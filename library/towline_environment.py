#!/usr/bin/python
"""Ansible module: a virtual environment made from a tar file of wheels, without any network.

Wheels are unpacked here and not by pip: pip would have to be installed first, or run out of its
own wheel, and either takes minutes on an emulated node. The controller's pip has resolved and
checked them; what is left to do with a wheel is to unzip it and to write its console scripts.
"""

from __future__ import annotations

import configparser
import glob
import os
import shutil
import sys
import tarfile
import zipfile
from typing import Any

from ansible.module_utils.basic import AnsibleModule

DOCUMENTATION = r"""
module: towline_environment
short_description: Make a virtual environment from a tar file of wheels
description:
  - A stamp in the environment names the wheels that it holds. Other wheels make a new environment
    beside the old one, which then takes its place; a running daemon keeps what it has loaded.
options:
  path: {description: The environment., type: path, required: true}
  wheels: {description: A tar file with all wheels., type: path, required: true}
  digest: {description: The name of exactly these wheels., type: str, required: true}
  links: {description: A folder that gets a link to each program., type: path, required: true}
  programs: {description: The programs that are linked., type: list, elements: str, default: []}
  compiled:
    description: Packages whose bytecode is made now, because the sandboxed daemon cannot.
    type: list
    elements: str
    default: [replicator, msgspec, yaml, xxhash]
"""

STAMP = "towline-wheels"


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "path": {"type": "path", "required": True},
            "wheels": {"type": "path", "required": True},
            "digest": {"type": "str", "required": True},
            "links": {"type": "path", "required": True},
            "programs": {"type": "list", "elements": "str", "default": []},
            "compiled": {
                "type": "list",
                "elements": "str",
                "default": ["replicator", "msgspec", "yaml", "xxhash"],
            },
        },
        supports_check_mode=True,
    )
    try:
        module.exit_json(**converge(module))
    except (OSError, tarfile.TarError, zipfile.BadZipFile) as error:
        module.fail_json(msg=f"cannot make {module.params['path']}: {error}")


def converge(module: AnsibleModule) -> dict[str, Any]:
    """Make the environment unless its stamp says that it holds these wheels."""
    options = module.params
    held = read(os.path.join(options["path"], STAMP))
    links = missing_links(options)
    if held == options["digest"] and not links:
        return {"changed": False}
    if not module.check_mode:
        if held != options["digest"]:
            replace(module, options["path"])
        for link, program in links.items():
            if os.path.lexists(link):
                os.unlink(link)
            os.symlink(program, link)
    difference = {"before": f"wheels {held or 'none'}\n", "after": f"wheels {options['digest']}\n"}
    return {"changed": True, "diff": difference}


def missing_links(options: dict[str, Any]) -> dict[str, str]:
    """Return the links that are not there or lead elsewhere, and where they should lead."""
    wanted = {
        os.path.join(options["links"], name): os.path.join(options["path"], "bin", name)
        for name in options["programs"]
    }
    return {
        link: program
        for link, program in wanted.items()
        if not (os.path.islink(link) and os.readlink(link) == program)
    }


def read(path: str) -> str:
    """Return a file's text, or nothing."""
    try:
        with open(path, encoding="utf-8") as file:
            return file.read().strip()
    except OSError:
        return ""


def replace(module: AnsibleModule, path: str) -> None:
    """Make a new environment beside the old one, then swap them."""
    new, old = f"{path}.new", f"{path}.old"
    os.makedirs(os.path.dirname(path), mode=0o755, exist_ok=True)
    for leftover in (new, old):
        shutil.rmtree(leftover, ignore_errors=True)
    run(module, sys.executable, "-m", "venv", "--without-pip", new)
    (place,) = glob.glob(os.path.join(new, "lib", "python3.*", "site-packages"))
    unpack(module.params["wheels"], place)
    for name, target in console_scripts(place).items():
        write_script(os.path.join(new, "bin", name), os.path.join(path, "bin", "python"), target)
    packages = [os.path.join(place, name) for name in module.params["compiled"]]
    # The paths that bytecode names are those after the swap.
    relocation = ["-s", new, "-p", path]
    run(module, sys.executable, "-m", "compileall", "-q", *relocation, *packages)
    with open(os.path.join(new, STAMP), "w", encoding="utf-8") as file:
        file.write(module.params["digest"])
    if os.path.exists(path):
        os.rename(path, old)
    os.rename(new, path)
    shutil.rmtree(old, ignore_errors=True)


def unpack(archive: str, place: str) -> None:
    """Unzip every wheel; refuse one with files that belong elsewhere."""
    with tarfile.open(archive) as tar:
        for member in tar:
            wheel = tar.extractfile(member)
            if wheel is None:
                continue
            with zipfile.ZipFile(wheel) as files:
                if any(name.split("/")[0].endswith(".data") for name in files.namelist()):
                    raise OSError(f"{member.name} has files outside of its packages")
                files.extractall(place)


def console_scripts(place: str) -> dict[str, str]:
    """Return the program names and entry points that the unpacked wheels declare."""
    scripts: dict[str, str] = {}
    for path in glob.glob(os.path.join(place, "*.dist-info", "entry_points.txt")):
        parser = configparser.ConfigParser(delimiters=("=",))
        parser.optionxform = str  # type: ignore[assignment, method-assign]
        parser.read(path, encoding="utf-8")
        if parser.has_section("console_scripts"):
            scripts.update(parser.items("console_scripts"))
    return scripts


def write_script(path: str, python: str, target: str) -> None:
    """Write a program that calls ``package.module:function``."""
    module, _, function = target.partition(":")
    text = f"#!{python}\nimport sys\n\nfrom {module} import {function}\n\nsys.exit({function}())\n"
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o755), "w") as file:
        file.write(text)


def run(module: AnsibleModule, *command: str) -> None:
    """Run a command that must succeed."""
    code, output, complaint = module.run_command(list(command))
    if code != 0:
        reason = (complaint.strip() or output.strip() or "no reason given").splitlines()[-1]
        module.fail_json(msg=f"{' '.join(command[:4])}: {reason}")


if __name__ == "__main__":
    main()

#!/usr/bin/python
"""Ansible module: the wheels that the nodes install, on the controller."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
import tarfile
import tempfile
import tomllib
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule

DOCUMENTATION = r"""
module: towline_wheels
short_description: Build the towline wheel and gather those it depends on
description:
  - Runs on the controller. Dependencies are fetched once for each version of their list, and kept
    in the cache; after that no network is needed. The wheel itself is built from the sources.
options:
  project: {description: The project's folder., type: path, required: true}
  cache: {description: Where the dependencies are kept., type: path, required: true}
  output: {description: Where the wheels of this build are put., type: path, required: true}
  python_version: {description: The nodes' Python., type: str, default: "3.11"}
"""

RETURN = r"""
archive: {description: A tar file of all wheels., returned: success, type: str}
digest: {description: A name for exactly these wheels., returned: success, type: str}
version: {description: The version of towline., returned: success, type: str}
"""

PLATFORMS = ("manylinux2014_x86_64", "manylinux_2_17_x86_64", "manylinux_2_28_x86_64")


class BuildFailed(Exception):
    """pip did not do it; the text says why."""


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "project": {"type": "path", "required": True},
            "cache": {"type": "path", "required": True},
            "output": {"type": "path", "required": True},
            "python_version": {"type": "str", "default": "3.11"},
        },
        supports_check_mode=True,
    )
    options = {name: module.params[name] for name in ("project", "cache", "output")}
    places = {name: Path(text) for name, text in options.items()}
    try:
        module.exit_json(**gather(**places, python_version=module.params["python_version"]))
    except BuildFailed as error:
        module.fail_json(msg=str(error))


def gather(project: Path, cache: Path, output: Path, python_version: str) -> dict[str, Any]:
    """Return the folder of the wheels, made when the sources changed."""
    metadata = tomllib.loads((project / "pyproject.toml").read_text())["project"]
    wanted = [*metadata["dependencies"], *metadata["optional-dependencies"]["lio"]]
    list_digest = _digest(" ".join([python_version, *PLATFORMS, *wanted]).encode())
    dependencies = cache / "wheels" / list_digest
    digest = _digest(list_digest.encode(), *_source_bytes(project))
    archive = output / f"wheels-{digest}.tar"
    if not dependencies.is_dir():
        _into(dependencies, lambda scratch: _download(wanted, scratch, python_version))
    if not archive.exists():
        _build(project, dependencies, archive)
    return {
        "changed": False,
        "archive": str(archive),
        "digest": digest,
        "version": metadata["version"],
    }


def _source_bytes(project: Path) -> list[bytes]:
    files = [project / "pyproject.toml", *sorted((project / "replicator").rglob("*"))]
    kept = [path for path in files if path.is_file() and "__pycache__" not in path.parts]
    return [
        part
        for path in kept
        for part in (str(path.relative_to(project)).encode(), path.read_bytes())
    ]


def _digest(*parts: bytes) -> str:
    state = hashlib.sha256()
    for part in parts:
        state.update(len(part).to_bytes(8, "little") + part)
    return state.hexdigest()[:16]


def _into(folder: Path, fill: Any) -> None:
    """Fill a scratch folder and rename it, so that a half-filled one is never used."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix="building-", dir=folder.parent))
    scratch.chmod(0o755)
    try:
        fill(scratch)
        scratch.rename(folder)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _download(wanted: list[str], folder: Path, python_version: str) -> None:
    platforms = [option for name in PLATFORMS for option in ("--platform", name)]
    abis = ["--abi", "cp" + python_version.replace(".", ""), "--abi", "abi3", "--abi", "none"]
    _pip(
        *("download", "--quiet", "--dest", str(folder), "--only-binary=:all:"),
        *("--python-version", python_version, "--implementation", "cp", *platforms, *abis),
        *wanted,
    )


def _build(project: Path, dependencies: Path, archive: Path) -> None:
    """Build from a copy, because setuptools leaves a build folder in the source tree."""
    archive.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=archive.parent) as name:
        scratch = Path(name)
        source = scratch / "source"
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(project / "replicator", source / "replicator", ignore=ignored)
        shutil.copy(project / "pyproject.toml", source)
        readme = project / "README.md"
        (source / "README.md").write_text(readme.read_text() if readme.exists() else "Towline\n")
        built = ["--no-deps", "--wheel-dir", str(scratch), str(source)]
        _pip("wheel", "--quiet", *built, *_isolation())
        with tarfile.open(scratch / "wheels.tar", "w") as tar:
            for wheel in [*scratch.glob("*.whl"), *dependencies.iterdir()]:
                tar.add(wheel, wheel.name)
        (scratch / "wheels.tar").rename(archive)


def _isolation() -> list[str]:
    """Build with the setuptools that is here, when there is one: no network."""
    probe = [sys.executable, "-c", "import setuptools, wheel"]
    found = subprocess.run(probe, capture_output=True).returncode == 0
    return ["--no-build-isolation"] if found else []


def _pip(*arguments: str) -> None:
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", *arguments]
    outcome = subprocess.run(command, capture_output=True, text=True)
    if outcome.returncode != 0:
        complaints = [line for line in outcome.stderr.splitlines() if line.startswith("ERROR")]
        reason = (complaints or outcome.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise BuildFailed(f"pip {arguments[0]} failed: {reason}")


if __name__ == "__main__":
    main()

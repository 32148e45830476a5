"""How the image is made: packages, scripts, excluded files, and the digest of all of it."""

from __future__ import annotations

import hashlib
import subprocess
from pathlib import Path

SUITE = "bookworm"
COMPONENT = "main"
INPUTS = Path(__file__).parent / "image"
IMAGE_SIZE = "3G"
# Not copied into the image: documentation, and drivers that no QEMU guest of ours has.
EXCLUDED = (
    "/usr/share/man/*",
    "/usr/share/doc/*",
    "/usr/share/info/*",
    "/usr/share/locale/*",
    "/usr/share/i18n/*",
    "/lib/modules/*/kernel/drivers/gpu/*",
    "/lib/modules/*/kernel/drivers/media/*",
    "/lib/modules/*/kernel/drivers/net/wireless/*",
    "/lib/modules/*/kernel/drivers/net/ethernet/*",
    "/lib/modules/*/kernel/drivers/infiniband/*",
    "/lib/modules/*/kernel/drivers/iio/*",
    "/lib/modules/*/kernel/drivers/staging/*",
    "/lib/modules/*/kernel/drivers/usb/*",
    "/lib/modules/*/kernel/sound/*",
)


def packages() -> list[str]:
    """Return the names in packages.txt."""
    lines = (INPUTS / "packages.txt").read_text().splitlines()
    return [line.strip() for line in lines if line.strip() and not line.startswith("#")]


def digest() -> str:
    """Return the name under which an image of this recipe is cached."""
    state = hashlib.sha256(f"{SUITE} {IMAGE_SIZE} {EXCLUDED}".encode())
    for name in ("packages.txt", "prepare.sh", "finish.sh"):
        state.update((INPUTS / name).read_bytes())
    return state.hexdigest()[:16]


def archive_lines() -> list[str]:
    """Return this machine's own sources of the suite, so that its mirrors are used.

    On a machine of another release the list is empty, and mmdebstrap's default archive serves.
    """
    listing = subprocess.run(
        [
            "apt-get",
            "indextargets",
            "--format",
            "$(REPO_URI)|$(RELEASE)|$(COMPONENT)",
            "Created-By: Packages",
        ],
        capture_output=True,
        text=True,
    ).stdout
    found = []
    for line in listing.splitlines():
        uri, release, component = line.split("|")
        if component == COMPONENT and release.split("-")[0] == SUITE:
            found.append(f"deb {uri} {release} {component}")
    return found


def apt_options() -> list[str]:
    """Return this machine's proxy settings for apt, as mmdebstrap options."""
    dump = subprocess.run(["apt-config", "dump"], capture_output=True, text=True).stdout
    wanted = ("Acquire::http::Proxy", "Acquire::https::Proxy")
    return [
        f"--aptopt={line.rstrip(';')};" for line in dump.splitlines() if line.startswith(wanted)
    ]

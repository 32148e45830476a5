"""On any node: look for its CHAP secrets where none may be; print the places, never a secret.

Secrets come from the files that may hold them (0600). Searched: the system journal, the kernel's
log, /var/log, command lines of all processes, and world-readable files of Towline and open-iscsi.
"""

import glob
import json
import os
import re
import subprocess

NAMES = r"(?:password|mutual_password|node\.session\.auth\.password(?:_in)?)"
PATTERN = re.compile(
    rf"^\s*['\"]?{NAMES}['\"]?\s*[:=]\s*['\"]?([A-Za-z0-9]{{12,16}})", re.MULTILINE
)
HOMES = ("/etc/towline/secrets.yml", "/etc/iscsi/nodes/*/*", "/etc/iscsi/nodes/*/*/*")


def files(patterns: tuple[str, ...]) -> list[str]:
    """Return the regular files that match."""
    return [path for each in patterns for path in glob.glob(each) if os.path.isfile(path)]


def text_of(path: str) -> str:
    """Return a file's text, or nothing if it is gone."""
    try:
        with open(path, errors="replace") as file:
            return file.read()
    except OSError:
        return ""


def output_of(*command: str) -> str:
    """Return what a command prints."""
    return subprocess.run(command, capture_output=True, text=True, errors="replace").stdout


homes = files(HOMES)
secrets = {found for path in homes for found in PATTERN.findall(text_of(path))}
places = {"system journal": output_of("journalctl", "--no-pager", "-o", "cat")}
places["kernel log"] = output_of("dmesg")
for path in files(("/var/log/*", "/var/log/*/*.log", "/proc/[0-9]*/cmdline", "/run/towline/*")):
    places[path] = text_of(path)
for path in files(
    ("/etc/towline/*", "/etc/systemd/system/*", "/etc/target/*", "/etc/rtslib-fb-target/*")
):
    if path not in homes:
        places[path] = text_of(path)
print(
    json.dumps(
        {
            "secrets": len(secrets),
            "readable_homes": [path for path in homes if os.stat(path).st_mode & 0o077],
            "leaks": sorted(
                place for place, text in places.items() if any(each in text for each in secrets)
            ),
        }
    )
)

"""Cut and heal cables: one QMP ``set_link`` at each end (needs the ``qemu.qmp`` package)."""

from __future__ import annotations

import asyncio

from . import power, qemu
from .description import Lab
from .errors import LabError
from .places import Places


def set_cable(lab: Lab, places: Places, name: str, up: bool) -> None:
    """Take the carrier from both ends of a cable, or give it back."""
    cable = lab.cable(name)
    for machine in cable.ends:
        if power.running_pid(places, machine) is not None:
            execute(places, machine, "set_link", {"name": cable.name, "up": up})


def execute(places: Places, machine: str, command: str, arguments: dict[str, object]) -> object:
    """Run one QMP command at a machine; return its answer."""
    return asyncio.run(_execute(str(qemu.qmp_socket(places, machine)), command, arguments))


async def _execute(path: str, command: str, arguments: dict[str, object]) -> object:
    from qemu.qmp import QMPClient, QMPError

    client = QMPClient("towline-lab")
    try:
        await client.connect(path)
        return await client.execute(command, arguments)
    except QMPError as error:
        raise LabError(f"QMP {command} at {path} failed: {error}") from error
    finally:
        await client.disconnect()

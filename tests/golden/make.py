"""Write the golden images of the format's current version: ``python -m tests.golden.make``.

Run once for each version of the format, and never again for it: a reader has to read what was
written by the release, not what today's code would write. Existing images are not overwritten.
"""

from __future__ import annotations

import json
import sys
import zlib
from pathlib import Path

from replicator.codec.batch import VERSION
from tests.sim.devices import Machine
from tests.sim.plans import SITES
from tests.sim.site import JOURNAL, SimClock, Stack
from tests.sim.views import PeerView
from tests.sim.world import World

HERE = Path(__file__).parent
SEED = 20
STEPS = 1500


def recovered(machine: Machine, world: World) -> Stack:
    """Return the stack that recovery builds on ``machine``; its peers cannot be read."""
    views = {
        name: PeerView(lambda: machine.devices[0], lambda: False)
        for name in SITES
        if name != machine.name
    }
    return Stack(machine, world.shape, views, SimClock(lambda: 0.0), bytes(16))


def main() -> int:
    """Run a world, cut its power, and keep what every disk holds and what recovery makes of it."""
    manifest = HERE / f"v{VERSION}.json"
    if manifest.exists():
        print(f"{manifest.name} exists: images of a version are written once")
        return 1
    world = World(SEED, calm=True)
    world.run_steps(STEPS)
    sites = {}
    for name in SITES:
        fork = world.sites[name].machine.fork_after_power_loss(SEED, "some")
        for device in fork.devices:
            path = HERE / f"v{VERSION}-{name}-{device.name}.z"
            path.write_bytes(zlib.compress(bytes(device.content), 9))
        stack = recovered(fork, world)
        world.oracle.judge_at(stack.images(), stack.journal.head.position, name)
        sites[name] = {
            "head": stack.journal.head.position,
            "digest": stack.journal.head.digest.hex(),
            "records": stack.journal.head.sequence,
            "role": stack.journal.body.role,
            "ring_bytes": len(fork[JOURNAL].content) - stack.journal.ring.place.offset,
            "volumes": {
                str(volume_id): zlib.crc32(image) for volume_id, image in stack.images().items()
            },
        }
    manifest.write_text(json.dumps({"seed": SEED, "sites": sites}, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())

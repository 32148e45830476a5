"""Random operations of an NBD client against a model: replicated, or refused by name (F48)."""

from __future__ import annotations

import random

from replicator.embedded.lab import LabPlan
from tests.embedded.conftest import MakeLab
from tests.embedded.test_live_volumes import change, until
from tests.fakes.nbd_client import FLUSH, READ, TRIM, WRITE, WRITE_ZEROES, NbdClient
from tests.tally import count, wanted

MIB = 1 << 20
PLAN = LabPlan(volumes={"db": "4MiB"}, journal="32MiB", interval={"fixed": "50ms"})
EINVAL, ENOSPC = 22, 28


class Model:
    """What the volume must hold."""

    def __init__(self, size: int, seed: int) -> None:
        self.content = bytearray(size)
        self.random = random.Random(seed)
        self.refused = 0

    def step(self, client: NbdClient) -> None:
        """Do one operation; a quarter of them cannot be done and must be refused."""
        rng = self.random
        size = len(self.content)
        command = rng.choice((READ, WRITE, WRITE, WRITE, TRIM, WRITE_ZEROES, FLUSH))
        if command == FLUSH:
            assert client.ask(FLUSH)[0] == 0
            return
        length = 512 * rng.choice((1, 1, 3, 8, 17, 64, 513, 2048))
        offset = rng.randrange(0, size - length, 512)
        wrong = rng.random()
        if wrong < 0.1:
            offset += rng.randrange(1, 512)
        elif wrong < 0.15:
            length += rng.randrange(1, 512)
        elif wrong < 0.25:
            offset = size - 512 * rng.randrange(length // 512)
        good = wrong >= 0.25 or (
            offset % 512 == 0 and length % 512 == 0 and offset + length <= size
        )
        payload = rng.randbytes(length) if command == WRITE else b""
        error, found = client.ask(command, offset, length, payload)
        if not good and error:
            assert error in (EINVAL, ENOSPC), error
            self.refused += 1
            return
        assert error == 0, (command, offset, length)
        if command == READ:
            assert found == self.content[offset : offset + length]
        else:
            self.content[offset : offset + length] = payload or bytes(length)


def test_random_operations_equal_a_model_at_every_site(make_lab: MakeLab) -> None:
    lab = make_lab(PLAN)
    lab.start()
    for name in ("b", "c"):
        until(lambda name=name: lab.sites[name].status().own.state == "following", name)
    seed = wanted("TOWLINE_F48_SEED", 48)
    model = Model(4 * MIB, seed)
    operations = wanted("TOWLINE_F48_OPERATIONS", 1500)
    for size in (4, 6, 8):
        if size > 4:
            lab.set_volumes({"db": f"{size}MiB"})
            change(lab, "grow", "db")
            model.content += bytes(2 * MIB)
        with NbdClient(lab.primary.nbd_socket, "db") as client:
            assert client.size_bytes == size * MIB
            for _ in range(operations // 3):
                model.step(client)
    assert model.refused > operations // 20, "requests that cannot be done were among them"
    lab.wait_converged()
    lab.stop()
    for site in lab.sites.values():
        assert site.volume_path("db").read_bytes() == model.content, f"{site.name}, seed {seed}"
    count("F48", operations)

"""A small lab on files for the command line's tests: a topology and a journal with batches."""

from __future__ import annotations

from pathlib import Path

from replicator.cli.main import main
from replicator.codec.batch import Context, Point, batch_length, build_batch
from replicator.codec.records import RecordKind
from replicator.journal.journal import Journal, Owner
from replicator.seams.filedevice import DirectDevice

TOPOLOGY = """\
groups:
  orders:
    volumes: {db: 1MiB, wal: 1MiB}
    journal: {size: 16MiB}
    sites:
      a: {primary: true}
      b: {upstream: a, interval: {fixed: 500ms}}
sites:
  a: {address: 127.0.0.1, devices: "directory:a"}
  b: {address: 127.0.0.2, devices: "directory:b"}
"""
PAYLOAD = 4096


def make_lab(folder: Path) -> Path:
    """Write the topology, format both journals, and return the topology's path."""
    path = folder / "topology.yml"
    path.write_text(TOPOLOGY)
    for site in ("a", "b"):
        assert main(["journal", "format", "--topology", str(path), "--site", site]) == 0
    return path


def journal_file(folder: Path, site: str) -> Path:
    """Return where a site's journal is."""
    return folder / site / "orders.journal"


def append_batches(folder: Path, count: int) -> list[Point]:
    """Append ``count`` batches of one 4 KiB write each at a, publish, and return their ends."""
    device = DirectDevice(journal_file(folder, "a"), writable=True, lock=True)
    journal = Journal.open(device, Owner("orders", "a", bytes(16), ("b",)))
    epoch, group_id = journal.catalog.history.last.id, journal.catalog.group_id
    ends = []
    for number in range(count):
        content = memoryview(bytearray(batch_length(1, PAYLOAD)))
        context = Context(
            group_id, epoch, journal.head, 10**9 * (number + 1), journal.head.position
        )
        payload = [bytes([number + 1]) * PAYLOAD]
        write = (RecordKind.WRITE, 1, number * PAYLOAD, PAYLOAD, payload)
        end = build_batch(context, [write], content)
        journal.append([content], end)
        ends.append(end)
    journal.publish()
    device.close()
    return ends


def damage(path: Path, offset: int) -> None:
    """Turn over one byte of a file."""
    with path.open("r+b") as file:
        file.seek(offset)
        byte = file.read(1)
        file.seek(offset)
        file.write(bytes([byte[0] ^ 0xFF]))

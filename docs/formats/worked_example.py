"""Print the worked example of journal.md: ``python docs/formats/worked_example.py``."""

from replicator.codec.batch import LOG_START, Content, Context, build_batch
from replicator.codec.records import RecordKind

GROUP_ID = bytes(range(0x10, 0x20))
EPOCH_ID = bytes(range(0x20, 0x30))


def worked_example() -> str:
    """Build one batch of two records and return its first bytes as text."""
    out = memoryview(bytearray(16384))
    contents: list[Content] = [
        (RecordKind.WRITE, 1, 8192, 512, [b"towline!" * 64]),
        (RecordKind.ZERO, 2, 4096, 65536, ()),
    ]
    context = Context(GROUP_ID, EPOCH_ID, LOG_START, 1795363200000000000, 0)
    end = build_batch(context, contents, out)
    rows = []
    for start, length in ((0, 0x100), (0x1000, 0x10)):
        for at in range(start, start + length, 16):
            row = bytes(out[at : at + 16])
            text = "".join(chr(byte) if 32 <= byte < 127 else "." for byte in row)
            rows.append(f"{at:06x}  {row.hex(' ')}  |{text}|")
    rows.append(f"ends at {end.position}, digest {end.digest.hex()}, next sequence {end.sequence}")
    return "\n".join(rows)


if __name__ == "__main__":
    print(worked_example())

"""Stamped writes, and the judge of any image that should hold them.

``stamp.py write PATH RUN FIRST COUNT BLOCKS`` writes COUNT blocks of 4 KiB with O_DIRECT, one
after the other, at addresses that RUN and the sequence number alone decide, below block BLOCKS.
Each block carries run, sequence, address and a digest. It prints the last sequence that was
answered. ``stamp.py trickle PATH RUN BLOCKS PROGRESS`` writes until it is killed, and keeps in the
file PROGRESS how many were answered. ``stamp.py judge PATH RUN COUNT BLOCKS`` reads an image and
prints how far it got: the number m such that the image holds exactly the first m writes of the
run, or why there is none.
"""

import hashlib
import itertools
import json
import mmap
import os
import random
import sys
from collections.abc import Iterator

BLOCK = 4096
STAMP = 64


def address(run: str, sequence: int, blocks: int) -> int:
    """Return the block that write ``sequence`` of the run goes to."""
    return random.Random(f"{run}/{sequence}").randrange(blocks)


def content(run: str, sequence: int, block: int) -> bytes:
    """Return the block's bytes: a readable stamp, then bytes that follow from it."""
    stamp = f"{run} {sequence} {block}".encode().ljust(STAMP)
    digest = hashlib.blake2b(stamp).digest()
    return stamp + (digest * (BLOCK // len(digest)))[: BLOCK - STAMP]


def answers(path: str, run: str, first: int, blocks: int) -> Iterator[int]:
    """Write one block after the other, for ever; yield how many were answered."""
    buffer = mmap.mmap(-1, BLOCK)
    descriptor = os.open(path, os.O_WRONLY | os.O_DIRECT)
    for sequence in itertools.count(first):
        block = address(run, sequence, blocks)
        buffer[:] = content(run, sequence, block)
        os.pwrite(descriptor, buffer, block * BLOCK)
        yield sequence + 1


def write(path: str, run: str, first: int, count: int, blocks: int) -> dict[str, int]:
    """Write and return what was answered."""
    answered = max(itertools.islice(answers(path, run, first, blocks), count), default=first)
    return {"first": first, "answered": answered}


def trickle(path: str, run: str, blocks: int, progress: str) -> None:
    """Write until killed."""
    file = os.open(progress, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for answered in answers(path, run, 0, blocks):
        os.pwrite(file, b"%12d\n" % answered, 0)


def judge(path: str, run: str, count: int, blocks: int) -> dict[str, object]:
    """Return how many of the first ``count`` writes the image holds, as a true prefix or not."""
    with open(path, "rb") as file:
        image = file.read(blocks * BLOCK)
    found = {}
    for block in range(blocks):
        piece = image[block * BLOCK : (block + 1) * BLOCK]
        words = piece[:STAMP].split()
        if len(words) != 3 or words[0] != run.encode():
            continue
        sequence = int(words[1])
        if piece != content(run, sequence, block):
            return {"prefix": None, "reason": f"block {block} is torn (stamp {piece[:STAMP]!r})"}
        found[block] = sequence
    prefix = max(found.values(), default=-1) + 1
    wanted = {address(run, sequence, blocks): sequence for sequence in range(prefix)}
    wrong = [block for block in set(wanted) | set(found) if wanted.get(block) != found.get(block)]
    if wrong:
        block = wrong[0]
        reason = (
            f"block {block} has write {found.get(block)}, write {wanted.get(block)} is its last"
        )
        return {"prefix": None, "reason": f"{reason} below {prefix}; {len(wrong)} such blocks"}
    if prefix > count:
        return {"prefix": None, "reason": f"holds write {prefix - 1}, only {count} were sent"}
    return {"prefix": prefix}


verb, where, name, *numbers = sys.argv[1:]
if verb == "trickle":
    trickle(where, name, int(numbers[0]), numbers[1])
elif verb == "write":
    print(json.dumps(write(where, name, *map(int, numbers))))
else:
    print(json.dumps(judge(where, name, *map(int, numbers))))

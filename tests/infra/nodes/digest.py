"""On a site: print a digest for each device (``digest.py OFFSET BYTES PATH...``).

BYTES 0 means to the end. Read-only and through the page cache, which the volumes' writer uses too.
Clean pages are dropped first: what LIO or a write with O_DIRECT put under them would not be seen.
"""

import json
import os
import sys

import xxhash

CHUNK = 4 << 20


def digest(path: str, offset: int, length: int) -> str:
    """Return the xxh3-128 of the range."""
    state = xxhash.xxh3_128()
    descriptor = os.open(path, os.O_RDONLY)
    os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    try:
        end = offset + length if length else os.lseek(descriptor, 0, os.SEEK_END)
        while offset < end:
            content = os.pread(descriptor, min(CHUNK, end - offset), offset)
            if not content:
                break
            state.update(content)
            offset += len(content)
    finally:
        os.close(descriptor)
    return state.hexdigest()


start, size, *paths = sys.argv[1:]
print(json.dumps({path: digest(path, int(start), int(size)) for path in paths}))

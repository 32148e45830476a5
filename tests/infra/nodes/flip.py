"""On a site: flip one bit of a device at a byte offset, durably (``flip.py PATH OFFSET``)."""

import os
import sys

path, offset = sys.argv[1], int(sys.argv[2])
descriptor = os.open(path, os.O_RDWR | os.O_SYNC)
before = os.pread(descriptor, 1, offset)[0]
os.pwrite(descriptor, bytes([before ^ 1]), offset)
os.fsync(descriptor)
os.close(descriptor)
print(f"{before} -> {before ^ 1}")

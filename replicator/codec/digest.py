"""The digest of the journal: XXH3, 128 bits, big-endian canonical form.

It stands against accidents and bugs. It makes no claim against a forger who can write to a
journal volume; the LIO access lists and CHAP do that.
"""

from __future__ import annotations

from collections.abc import Iterable

import xxhash

DIGEST_BYTES = 16


def digest(content: bytes | bytearray | memoryview) -> bytes:
    """Return the 16-byte digest of ``content``."""
    return xxhash.xxh3_128_digest(content)


def digest_of_parts(parts: Iterable[bytes | bytearray | memoryview]) -> bytes:
    """Return the digest of the concatenation of ``parts`` without building it."""
    state = xxhash.xxh3_128()
    for part in parts:
        state.update(part)
    return state.digest()

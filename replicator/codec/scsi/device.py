"""What a logical unit tells hosts about itself, as one immutable value."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

from replicator.model import SECTOR

MAX_TRANSFER_BLOCKS = 2048
"""Longest READ, WRITE or VERIFY: 1 MiB, a quarter of what the service takes as one write."""
MAX_ZERO_BLOCKS = 65528
"""Longest UNMAP or WRITE SAME: what a 16-bit block count holds in whole 4 KiB (nearly 32 MiB)."""
MAX_UNMAP_DESCRIPTORS = 32
MAX_COMPARE_BLOCKS = 255
"""COMPARE AND WRITE has one byte for its length (SBC-3 5.2)."""
PHYSICAL_EXPONENT = 3
"""2**3 logical blocks a physical block: hosts align to the journal's 4 KiB."""


class AluaState(IntEnum):
    """Asymmetric access state of the target port group (SPC-4 6.37)."""

    ACTIVE = 0x0
    STANDBY = 0x2


@dataclass(frozen=True, slots=True)
class ScsiDevice:
    """One volume as hosts see it: the same serial and NAA id at every site.

    ``naa`` is the 16-byte NAA IEEE registered extended id; ``port_group`` and ``relative_port``
    (1..65535) tell the sites apart; ``blocks`` counts 512-byte logical blocks.
    """

    serial: str
    naa: bytes
    blocks: int
    port_group: int = 1
    relative_port: int = 1
    alua: AluaState = AluaState.ACTIVE
    vendor: str = "Towline"
    product: str = "replicated disk"
    revision: str = "0001"

    def __post_init__(self) -> None:
        """Refuse identities that no host could parse (our own mistakes)."""
        assert len(self.naa) == 16, "the NAA id has 16 bytes"
        assert self.blocks > 0, "an empty volume is not exported"
        assert len(self.serial) <= 252 and self.serial.isascii(), "the serial is short ASCII"

    @property
    def size_bytes(self) -> int:
        """Return the capacity in bytes."""
        return self.blocks * SECTOR

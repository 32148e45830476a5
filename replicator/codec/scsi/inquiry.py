"""INQUIRY: the standard data and the vital product data pages (SPC-4 6.6 and 7.8, SBC-3 6.6)."""

from __future__ import annotations

import struct

from replicator.codec.scsi import device as limits
from replicator.codec.scsi import sense
from replicator.codec.scsi.actions import Action, Answer, Fail
from replicator.codec.scsi.device import ScsiDevice

_VERSIONS = (0x00A0, 0x0460, 0x04C0, 0x0960)  # SAM-5, SPC-4, SBC-3, iSCSI
_GRANULARITY = 1 << limits.PHYSICAL_EXPONENT


def decode_inquiry(cdb: bytes, device: ScsiDevice) -> Action:
    """Answer INQUIRY (12h); CMDDT and unknown pages are refused."""
    allocation = cdb[3] << 8 | cdb[4]
    page = cdb[2]
    if cdb[1] & 0x02:
        return Fail(sense.INVALID_FIELD_IN_CDB)
    if cdb[1] & 0x01:
        build = _PAGES.get(page)
        if build is None:
            return Fail(sense.INVALID_FIELD_IN_CDB)
        body = build(device)
        return Answer((struct.pack(">BBH", 0, page, len(body)) + body)[:allocation])
    if page:
        return Fail(sense.INVALID_FIELD_IN_CDB)
    return Answer(standard_inquiry(device)[:allocation])


def standard_inquiry(device: ScsiDevice) -> bytes:
    """Return the 96 bytes of standard INQUIRY data: SPC-4, implicit ALUA, command queuing."""
    head = bytes((0x00, 0x00, 0x06, 0x12, 91, 0x10, 0x00, 0x02))
    names = _padded(device.vendor, 8) + _padded(device.product, 16) + _padded(device.revision, 4)
    versions = b"".join(struct.pack(">H", version) for version in _VERSIONS)
    return (head + names + bytes(22) + versions).ljust(96, b"\0")


def _padded(text: str, width: int) -> bytes:
    return text.encode("ascii", "replace")[:width].ljust(width)


def _supported_pages(_device: ScsiDevice) -> bytes:
    return bytes(sorted(_PAGES))


def _serial(device: ScsiDevice) -> bytes:
    return device.serial.encode("ascii")


def _identification(device: ScsiDevice) -> bytes:
    """Return NAA, T10 vendor id, relative target port and target port group descriptors."""
    vendor = _padded(device.vendor, 8) + device.serial.encode("ascii")[:200]
    return b"".join(
        (
            bytes((0x01, 0x03, 0x00, 16)) + device.naa,
            bytes((0x02, 0x01, 0x00, len(vendor))) + vendor,
            struct.pack(">BBBBHH", 0x61, 0x94, 0, 4, 0, device.relative_port),
            struct.pack(">BBBBHH", 0x61, 0x95, 0, 4, 0, device.port_group),
        )
    )


def _block_limits(_device: ScsiDevice) -> bytes:
    return struct.pack(
        ">BBHIIIIIIIQ20x",
        0x01,  # WSNZ: WRITE SAME of "0 blocks, to the end" is refused
        limits.MAX_COMPARE_BLOCKS,
        _GRANULARITY,
        limits.MAX_TRANSFER_BLOCKS,
        0,  # no optimal transfer length
        0,  # no prefetch limit
        limits.MAX_ZERO_BLOCKS,
        limits.MAX_UNMAP_DESCRIPTORS,
        _GRANULARITY,
        0x80000000,  # UGAVALID, alignment 0
        limits.MAX_ZERO_BLOCKS,
    )


def _characteristics(_device: ScsiDevice) -> bytes:
    return struct.pack(">H58x", 1)  # non-rotating


def _provisioning(_device: ScsiDevice) -> bytes:
    """Return UNMAP, WRITE SAME 16 and 10 with UNMAP, zeros after them, thin."""
    return bytes((0, 0x80 | 0x40 | 0x20 | 0x04, 0x02, 0))


_PAGES = {
    0x00: _supported_pages,
    0x80: _serial,
    0x83: _identification,
    0xB0: _block_limits,
    0xB1: _characteristics,
    0xB2: _provisioning,
}

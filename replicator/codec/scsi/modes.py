"""MODE SENSE and MODE SELECT, 6 and 10 (SPC-4 6.13, 6.11; SBC-3 6.5).

No volatile cache (WCE=0: an answered write is durable), so FUA is met without doing anything and
DPOFUA=1 says that it may be set. No page has a changeable field: MODE SELECT takes only what is
already so.
"""

from __future__ import annotations

import struct
from collections.abc import Callable

from replicator.codec.scsi import sense
from replicator.codec.scsi.actions import GOOD, Action, Answer, Fail, Parameters
from replicator.codec.scsi.device import ScsiDevice
from replicator.model import SECTOR

_Decoder = Callable[[bytes, ScsiDevice], Action]
_DPOFUA = 0x10
_PAGES = {
    0x08: bytes((0x08, 0x12)) + bytes(18),
    0x0A: bytes((0x0A, 0x0A, 0x02, 0x10, 0x00, 0x40, 0, 0, 0xFF, 0xFF, 0, 0)),
    0x1C: bytes((0x1C, 0x0A)) + bytes(10),
}
"""Caching (WCE=0, RCD=0); control (GLTSD, QAM=1 unrestricted reordering, D_SENSE=0, SWP=0, TAS=1);
informational exceptions."""
_ALL_PAGES = 0x3F


def decode_mode_sense_6(cdb: bytes, device: ScsiDevice) -> Action:
    """Answer MODE SENSE 6 (1Ah)."""
    body = _mode_pages(cdb, device)
    if body is None:
        return Fail(_saving_or_invalid(cdb))
    descriptor, pages = body
    length = 3 + len(descriptor) + len(pages)
    head = bytes((length, 0, _DPOFUA, len(descriptor)))
    return Answer((head + descriptor + pages)[: cdb[4]])


def decode_mode_sense_10(cdb: bytes, device: ScsiDevice) -> Action:
    """Answer MODE SENSE 10 (5Ah); always with the short block descriptor."""
    body = _mode_pages(cdb, device)
    if body is None:
        return Fail(_saving_or_invalid(cdb))
    descriptor, pages = body
    length = 6 + len(descriptor) + len(pages)
    head = struct.pack(">HBBHH", length, 0, _DPOFUA, 0, len(descriptor))
    return Answer((head + descriptor + pages)[: cdb[7] << 8 | cdb[8]])


def _saving_or_invalid(cdb: bytes) -> sense.Sense:
    return sense.SAVING_NOT_SUPPORTED if cdb[2] >> 6 == 3 else sense.INVALID_FIELD_IN_CDB


def _mode_pages(cdb: bytes, device: ScsiDevice) -> tuple[bytes, bytes] | None:
    """Return (block descriptor, pages) as the CDB asks, None if it asks for what is not there."""
    control, page, subpage = cdb[2] >> 6, cdb[2] & 0x3F, cdb[3]
    if control == 3:
        return None
    if page == _ALL_PAGES and subpage in (0x00, 0xFF):
        wanted = list(_PAGES.values())
    elif page in _PAGES and subpage == 0:
        wanted = [_PAGES[page]]
    else:
        return None
    if control == 1:  # changeable values: none
        wanted = [content[:2] + bytes(len(content) - 2) for content in wanted]
    descriptor = b""
    if not cdb[1] & 0x08:
        descriptor = struct.pack(">II", min(device.blocks, 0xFFFFFFFF), SECTOR)
    return descriptor, b"".join(wanted)


def decode_mode_select_6(cdb: bytes, _device: ScsiDevice) -> Action:
    """Take the parameter list of MODE SELECT 6 (15h)."""
    return _mode_select(cdb[1], cdb[4], _select_6)


def decode_mode_select_10(cdb: bytes, _device: ScsiDevice) -> Action:
    """Take the parameter list of MODE SELECT 10 (55h)."""
    return _mode_select(cdb[1], cdb[7] << 8 | cdb[8], _select_10)


def _mode_select(flags: int, length: int, decode: _Decoder) -> Action:
    if flags & 0x01 or not flags & 0x10:  # SP=0, PF=1
        return Fail(sense.INVALID_FIELD_IN_CDB)
    return Parameters(length, decode) if length else GOOD


def _select_6(parameters: bytes, device: ScsiDevice) -> Action:
    if len(parameters) < 4:
        return Fail(sense.PARAMETER_LIST_LENGTH)
    return _select_pages(parameters, 4, parameters[3], device)


def _select_10(parameters: bytes, device: ScsiDevice) -> Action:
    if len(parameters) < 8:
        return Fail(sense.PARAMETER_LIST_LENGTH)
    return _select_pages(parameters, 8, parameters[6] << 8 | parameters[7], device)


def _select_pages(parameters: bytes, head: int, descriptor: int, device: ScsiDevice) -> Action:
    """Accept pages that equal the current ones; anything else would be a change."""
    offset = head + descriptor
    if offset > len(parameters):
        return Fail(sense.PARAMETER_LIST_LENGTH)
    if descriptor not in (0, 8):
        return Fail(sense.INVALID_FIELD_IN_PARAMETERS)
    if descriptor and not _descriptor_fits(parameters[head:offset], device):
        return Fail(sense.INVALID_FIELD_IN_PARAMETERS)
    while offset < len(parameters):
        page = _PAGES.get(parameters[offset] & 0x3F)
        if page is None:
            return Fail(sense.INVALID_FIELD_IN_PARAMETERS)
        given = parameters[offset : offset + len(page)]
        if len(given) < len(page):
            return Fail(sense.PARAMETER_LIST_LENGTH)
        if given[1:] != page[1:] or given[0] & 0x7F != page[0]:
            return Fail(sense.INVALID_FIELD_IN_PARAMETERS)
        offset += len(page)
    return GOOD


def _descriptor_fits(descriptor: bytes, device: ScsiDevice) -> bool:
    blocks, length = struct.unpack(">II", descriptor)
    return length & 0xFFFFFF == SECTOR and blocks in (0, min(device.blocks, 0xFFFFFFFF))

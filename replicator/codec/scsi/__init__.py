"""SCSI as a disk's device server speaks it (SPC-4, SBC-3): CDB bytes in, action values out.

Pure: no I/O, no state. ``dispatch.decode`` is the one entry; a front end carries the action out.
"""

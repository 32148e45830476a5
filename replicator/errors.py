"""Errors that an operator can tell apart, each with its exit code.

A message says what, where, expected, got, and what to do next, in one line. Errors are for the
world (disks, peers, operators); assertions are for our own mistakes.
"""

from __future__ import annotations


class TowlineError(Exception):
    """Base of every condition that is reported to an operator without a traceback."""

    exit_code = 1


class UsageError(TowlineError):
    """The command line asks for something that does not exist or does not fit together."""

    exit_code = 2


class ConfigError(TowlineError):
    """The topology or a node's configuration is wrong; carries every violation at once."""

    exit_code = 3

    def __init__(self, where: str, violations: list[str]) -> None:
        self.where = where
        self.violations = violations
        count = len(violations)
        noun = "violation" if count == 1 else "violations"
        super().__init__(f"{where}: {count} {noun}: " + "; ".join(violations))


class DeviceUnusable(TowlineError):
    """A device is missing, too small, of the wrong kind, or cannot be opened."""

    exit_code = 4


class DeviceBusy(TowlineError):
    """Another process (a second replicator, LVM, a file system) holds the device."""

    exit_code = 5


class NotBlank(TowlineError):
    """Formatting was asked for a device that holds something."""

    exit_code = 6


class NotAJournal(TowlineError):
    """No valid journal page: a blank or foreign device where a journal was expected."""

    exit_code = 7


class WrongJournal(TowlineError):
    """A valid journal, but of another group, site, journal id or format version."""

    exit_code = 8


class JournalRotten(TowlineError):
    """Committed bytes of the journal fail their check; the offset is in the message."""

    exit_code = 9


class DeviceFailed(TowlineError):
    """A read, write or flush failed; after a failed write or flush the device is distrusted."""

    exit_code = 10


class JournalFailed(DeviceFailed):
    """The site's own journal device failed: nothing more is answered, the site halts."""


class JournalFull(TowlineError):
    """The ring has no room and nothing may be reclaimed yet."""

    exit_code = 11


class PeerRefused(TowlineError):
    """A peer's pages are garbage, of another group, go back, or do not fit our history."""

    exit_code = 12


class PeerAhead(PeerRefused):
    """A peer durably holds more than this primary's journal: our disk lost what it had called
    durable, or another primary is at work."""


class WentOn(PeerRefused):
    """A peer's history contains this site's and goes on: this primary's term has ended."""


class Overtaken(PeerRefused):
    """The group went on from a fork below this site's head: its last records are its own."""

    exit_code = 22


class SplitBrain(PeerRefused):
    """Two sites' histories do not contain each other: each has gone on alone."""

    exit_code = 23


class Detached(TowlineError):
    """The source has reclaimed records that this site has not received."""

    exit_code = 13


class NoRoomForMaps(TowlineError):
    """The dirty maps of readers left behind do not fit into the journal's metadata area."""

    exit_code = 24


class Refused(TowlineError):
    """The state of the group forbids what was asked; the reason is the message."""

    exit_code = 14


class DaemonUnreachable(TowlineError):
    """No replicatord answers on the control socket of the group."""

    exit_code = 15


class TargetFailed(TowlineError):
    """LIO refused a change of the target configuration."""

    exit_code = 16


class MissingPackage(TowlineError):
    """A program or package that is needed is not installed."""

    exit_code = 17


class LegLost(TowlineError):
    """The near site's journal cannot be written for now: nothing above what is proved is known
    there. What that means for hosts is the word of the link (or-stop, or-degrade)."""

    exit_code = 19


class ShutOut(TowlineError):
    """This site was fenced, or its near site's ring was sealed: it serves nothing any more."""

    exit_code = 20


class RingBroken(TowlineError):
    """The control page or an entry of a TCMU ring holds what cannot be; the device is halted."""

    exit_code = 18


class VolumesDiffer(TowlineError):
    """Verify records have shown pieces of volumes that differ from the primary's."""

    exit_code = 21

"""Handlers of the control socket for changes of role."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from replicator.daemon.control import Handler
from replicator.errors import UsageError
from replicator.group.failover import confirm_hosts, demote, promote
from replicator.group.site import SiteRuntime


class PromoteArguments(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What ``promote`` takes."""

    without: tuple[str, ...] = ()
    note: str = ""
    dry_run: bool = False


_PREPARED = msgspec.json.Decoder(PromoteArguments)
"""Never used itself: that it is built now lets threads convert (codec/__init__.py)."""


def role_handlers(runtime: SiteRuntime) -> Mapping[str, Handler]:
    """Return the handlers by command."""

    def promoted(given: dict[str, object]) -> object:
        try:
            asked = msgspec.convert(given, PromoteArguments)
        except msgspec.ValidationError as error:
            raise UsageError(f"promote: {error}") from error
        return promote(runtime, asked.without, asked.note, dry_run=asked.dry_run)

    return {
        "promote": promoted,
        "demote": lambda given: demote(runtime, str(given.get("to", ""))),
        "confirm-hosts": lambda given: confirm_hosts(runtime, str(given.get("note", ""))),
    }

"""replicatorctl: one entry point, a module for each command, one line for each error."""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import traceback
from collections.abc import Sequence

from replicator import __version__
from replicator.cli import (
    bookmark,
    check,
    config,
    failover,
    image,
    journal,
    metrics,
    peer,
    policy,
    pulls,
    restore,
    resync,
    seal,
    status,
    target,
    verify,
    volume,
)
from replicator.cli.node import add_topology_flags
from replicator.errors import TowlineError

INTERNAL_ERROR = 70
"""sysexits.h EX_SOFTWARE."""
INTERRUPTED = 130
_COMMANDS = (
    status,
    check,
    pulls,
    policy,
    metrics,
    restore,
    image,
    resync,
    peer,
    bookmark,
    volume,
    verify,
    journal,
    config,
    target,
    seal,
    failover,
)


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of every command; each one sets ``run``."""
    parser = argparse.ArgumentParser(
        prog="replicatorctl", description="Look after Towline's replication at this node."
    )
    parser.add_argument("--version", action="version", version=f"towline {__version__}")
    add_topology_flags(parser)
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for command in _COMMANDS:
        command.add_parser(commands)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code (docs/reference/exit-codes.md)."""
    arguments = build_parser().parse_args(argv)
    try:
        code = int(arguments.run(arguments))
        sys.stdout.flush()
        return code
    except TowlineError as error:
        return _complain(str(error), error.exit_code)
    except KeyboardInterrupt:
        return _complain("interrupted", INTERRUPTED)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:  # noqa: BLE001 (the last resort: it is kept, and told in one line)
        return _complain(
            f"internal error: {type(error).__name__}; the traceback is in {_keep_traceback()}",
            INTERNAL_ERROR,
        )


def _complain(message: str, code: int) -> int:
    print(f"replicatorctl: {' '.join(message.split())}", file=sys.stderr)
    return code


def _keep_traceback() -> str:
    try:
        with tempfile.NamedTemporaryFile(
            "w", prefix="replicatorctl-", suffix=".traceback", delete=False
        ) as file:
            traceback.print_exc(file=file)
            return file.name
    except OSError:
        traceback.print_exc()
        return "the lines above"

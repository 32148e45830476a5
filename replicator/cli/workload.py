"""Workloads for ``policy simulate``: read from a file, from recorded pulls, or generated.

A workload file is JSON: ``{"schema": 1, "samples": [{"seconds": 10, "records": 1200, "bytes":
4915200, "load": 0.2}, ...]}``: what hosts wrote in each stretch of time, and how busy the pulling
site's machine was (0 to 1) with other things. The output of ``replicatorctl pulls --json`` is
taken as it is.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path

import msgspec

from replicator.errors import ConfigError, UsageError
from replicator.status import PullHistory

SCHEMA = 1
MOST_SAMPLES = 100_000
LONGEST_SECONDS = 7 * 86_400.0


class Sample(msgspec.Struct, frozen=True, kw_only=True):
    """A stretch of time with an even load."""

    seconds: float
    records: int
    bytes: int
    load: float = 0.0


class Workload(msgspec.Struct, frozen=True, kw_only=True):
    """What hosts write, from the begin to the end."""

    samples: tuple[Sample, ...]
    schema: int = SCHEMA

    @property
    def seconds(self) -> float:
        """How long it lasts."""
        return sum(sample.seconds for sample in self.samples)


def _steady(at: int) -> Sample:
    return Sample(seconds=10.0, records=2000, bytes=2000 * 8192, load=0.2)


def _bursts(at: int) -> Sample:
    busy = at % 12 == 3
    records = 60_000 if busy else 400
    return Sample(seconds=10.0, records=records, bytes=records * 8192, load=0.6 if busy else 0.1)


def _day(at: int) -> Sample:
    part = 0.5 - 0.5 * math.cos(2 * math.pi * at / 60)
    records = round(100 + 12_000 * part)
    return Sample(seconds=10.0, records=records, bytes=records * 8192, load=round(0.6 * part, 3))


GENERATED: Mapping[str, Callable[[int], Sample]] = {
    "steady": _steady,
    "bursts": _bursts,
    "day": _day,
}
"""By name: 60 samples of 10 seconds each."""


def load_workload(name: str) -> Workload:
    """Return the generated workload called ``name``, or the one in the file ``name``.

    Raises UsageError if there is no such file, ConfigError with all violations if it is bad.
    """
    if name in GENERATED:
        return Workload(samples=tuple(GENERATED[name](at) for at in range(60)))
    try:
        content = Path(name).read_bytes()
    except OSError as error:
        known = ", ".join(GENERATED)
        raise UsageError(
            f"{name}: {error.strerror}; expected a workload file or one of: {known}"
        ) from error
    return parse_workload(content, name)


def parse_workload(content: bytes, where: str) -> Workload:
    """Return the workload in ``content``: a workload file, or recorded pulls."""
    try:
        fields = msgspec.json.decode(content, type=dict[str, msgspec.Raw])
        if "pulls" in fields:
            workload = _recorded(msgspec.json.decode(content, type=PullHistory))
        else:
            workload = msgspec.json.decode(content, type=Workload)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise ConfigError(where, [f"not a workload: {error}"]) from error
    violations = list(_violations(workload))
    if violations:
        raise ConfigError(where, violations)
    return workload


def _recorded(history: PullHistory) -> Workload:
    return Workload(
        samples=tuple(
            Sample(
                seconds=max(0.001, pull.measured.elapsed_seconds),
                records=pull.records,
                bytes=pull.bytes,
                load=pull.measured.load,
            )
            for pull in history.pulls
            if pull.measured is not None
        )
    )


def _violations(workload: Workload) -> list[str]:
    found = []
    if workload.schema != SCHEMA:
        found.append(f"schema: expected {SCHEMA}, got {workload.schema}")
    if not 1 <= len(workload.samples) <= MOST_SAMPLES:
        found.append(f"samples: expected 1 to {MOST_SAMPLES}, got {len(workload.samples)}")
    for at, sample in enumerate(workload.samples):
        if not 0 < sample.seconds <= LONGEST_SECONDS:
            found.append(f"samples.{at}.seconds: expected more than 0, got {sample.seconds:g}")
        if sample.records < 0 or sample.bytes < 0 or (sample.bytes > 0) != (sample.records > 0):
            found.append(
                f"samples.{at}: {sample.records} records of {sample.bytes} bytes make no sense"
            )
        if not 0 <= sample.load <= 1:
            found.append(f"samples.{at}.load: expected 0 to 1, got {sample.load:g}")
    if not found and workload.seconds > LONGEST_SECONDS:
        found.append(f"samples: together longer than {LONGEST_SECONDS:g} s")
    return found

"""The keys ``interval`` and ``rpo`` of a site: when it pulls, read with every contradiction named.

Three kinds of policy: ``fixed``, ``inputs`` between bounds (each input may have narrower ones of
its own), and a target RPO, alone or beside inputs.
"""

from __future__ import annotations

from typing import get_args

from replicator.codec.section import Section, quote
from replicator.codec.topology import AdaptiveInterval, Bounds, FixedInterval, Interval, PullInput
from replicator.units import format_duration, parse_fraction, parse_rate

INPUTS: tuple[PullInput, ...] = get_args(PullInput)
MINIMUM_INTERVAL_SECONDS = 0.01
MAXIMUM_INTERVAL_SECONDS = 3600.0
MINIMUM_RPO_SECONDS = 0.1
MAXIMUM_RPO_SECONDS = 86_400.0
MINIMUM_TRAFFIC_LIMIT = 64e3 / 8
MAXIMUM_TRAFFIC_LIMIT = 1e12 / 8
_RPO_SHORTEST_SECONDS = 0.1
_LIMITS = {"traffic_limit": "traffic", "load_limit": "load"}


def read_interval(site: Section) -> tuple[Interval, float | None]:
    """Return the policy of a site's section, and its target RPO in seconds if it has one."""
    rpo = _read_rpo(site) if site.has("rpo") else None
    if not site.has("interval"):
        return (_rpo_alone(rpo) if rpo else AdaptiveInterval()), rpo
    section = site.section("interval")
    section.expect(("fixed", "inputs", "min", "max", "bounds", "traffic_limit", "load_limit"))
    if section.has("fixed"):
        return _read_fixed(section, site, rpo), rpo
    if not section.readable:
        return AdaptiveInterval(), rpo
    return _read_adaptive(section, site, rpo), rpo


def _rpo_alone(rpo: float) -> AdaptiveInterval:
    shortest = min(_RPO_SHORTEST_SECONDS, rpo / 2)
    return AdaptiveInterval(
        inputs=(), min_seconds=shortest, max_seconds=max(shortest, rpo), rpo_seconds=rpo
    )


def _read_rpo(site: Section) -> float | None:
    rpo = site.duration("rpo")
    if rpo is None:
        return None
    if not MINIMUM_RPO_SECONDS <= rpo <= MAXIMUM_RPO_SECONDS:
        low, high = format_duration(MINIMUM_RPO_SECONDS), format_duration(MAXIMUM_RPO_SECONDS)
        site.refuse("rpo", f"expected {low} to {high}, got {quote(site.raw('rpo'))}")
        return None
    return rpo


def _read_fixed(section: Section, site: Section, rpo: float | None) -> FixedInterval:
    others = [
        key
        for key in ("inputs", "min", "max", "bounds", "traffic_limit", "load_limit")
        if section.has(key)
    ]
    if others:
        section.refuse("fixed", f"a fixed interval excludes {', '.join(others)}")
    seconds = _read_seconds(section, "fixed")
    if rpo and seconds > rpo:
        site.refuse("rpo", "contradiction: interval.fixed is longer than the rpo")
    return FixedInterval(seconds=seconds)


def _read_adaptive(section: Section, site: Section, rpo: float | None) -> AdaptiveInterval:
    shortest = _read_seconds(section, "min")
    longest = _read_seconds(section, "max")
    if shortest and longest and shortest > longest:
        section.refuse("min", "bounds out of order: min is longer than max")
    if rpo and shortest > rpo:
        site.refuse("rpo", "contradiction: interval.min is longer than the rpo")
    inputs = _read_inputs(section)
    for key, name in _LIMITS.items():
        if section.has(key) and name not in inputs:
            section.refuse(key, f"contradiction: {key} without the input {name}")
    if "traffic" in inputs and not section.has("traffic_limit"):
        section.refuse("traffic_limit", "missing: the input traffic needs one, such as 20Mbit")
    load_limit = 0.7
    if section.has("load_limit"):
        load_limit = section.measure("load_limit", parse_fraction, "a part such as 70%") or 0.7
    return AdaptiveInterval(
        inputs=inputs,
        min_seconds=shortest,
        max_seconds=longest,
        bounds=_read_bounds(section, inputs, shortest, longest),
        traffic_limit=_read_traffic_limit(section),
        load_limit=load_limit,
        rpo_seconds=rpo,
    )


def _read_seconds(section: Section, key: str) -> float:
    seconds = section.duration(key)
    if seconds is None:
        return 0.0
    if not MINIMUM_INTERVAL_SECONDS <= seconds <= MAXIMUM_INTERVAL_SECONDS:
        low = format_duration(MINIMUM_INTERVAL_SECONDS)
        high = format_duration(MAXIMUM_INTERVAL_SECONDS)
        section.refuse(key, f"expected {low} to {high}, got {quote(section.raw(key))}")
    return seconds


def _read_inputs(section: Section) -> tuple[PullInput, ...]:
    names = section.take("inputs", list[str], rule="a list of inputs such as [records]")
    if names is None:
        return ()
    if not names:
        section.refuse("inputs", "expected at least one input, such as records")
    for name in names:
        if name not in INPUTS:
            section.refuse(
                "inputs", f"unknown input {quote(name)}, expected some of: {', '.join(INPUTS)}"
            )
    if len(set(names)) != len(names):
        section.refuse("inputs", f"duplicate input in {quote(names)}")
    return tuple(name for name in INPUTS if name in names)


def _read_traffic_limit(section: Section) -> float | None:
    if not section.has("traffic_limit"):
        return None
    limit = section.measure("traffic_limit", parse_rate, "a rate such as 20Mbit")
    if limit is not None and not MINIMUM_TRAFFIC_LIMIT <= limit <= MAXIMUM_TRAFFIC_LIMIT:
        section.refuse(
            "traffic_limit",
            f"expected 64kbit to 1000Gbit, got {quote(section.raw('traffic_limit'))}",
        )
    return limit


def _read_bounds(
    section: Section, inputs: tuple[PullInput, ...], shortest: float, longest: float
) -> dict[PullInput, Bounds]:
    if not section.has("bounds"):
        return {}
    found: dict[PullInput, Bounds] = {}
    bounds = section.section("bounds")
    bounds.expect(INPUTS)
    for name in INPUTS:
        if not bounds.has(name):
            continue
        if name not in inputs:
            bounds.refuse(name, f"contradiction: bounds without the input {name}")
        one = bounds.section(name)
        one.expect(("min", "max"))
        low = _read_seconds(one, "min") if one.has("min") else shortest
        high = _read_seconds(one, "max") if one.has("max") else longest
        if low and high and low > high:
            one.refuse("", "bounds out of order: min is longer than max")
        if (low and shortest and low < shortest) or (high and longest and high > longest):
            one.refuse("", "bounds outside of interval.min and interval.max")
        found[name] = Bounds(min_seconds=low, max_seconds=high)
    return found

"""The key ``restore`` of a site: how fast, and how late, it brings its volumes up to date."""

from __future__ import annotations

from replicator.codec.section import Section, quote
from replicator.codec.topology import RestorePolicy
from replicator.units import format_duration, parse_fraction

MAXIMUM_DELAY_SECONDS = 7 * 86_400.0


def read_restore(site: Section) -> RestorePolicy:
    """Return the policy of a site's section; left out: at once, whatever the load."""
    if not site.has("restore"):
        return RestorePolicy()
    section = site.section("restore")
    section.expect(("load_limit", "delay"))
    delay = section.duration("delay") if section.has("delay") else 0.0
    if delay is not None and not 0 <= delay <= MAXIMUM_DELAY_SECONDS:
        longest = format_duration(MAXIMUM_DELAY_SECONDS)
        section.refuse("delay", f"expected 0s to {longest}, got {quote(section.raw('delay'))}")
    return RestorePolicy(load_limit=_read_limit(section), delay_seconds=delay or 0.0)


def _read_limit(section: Section) -> float | None:
    if not section.has("load_limit"):
        return None
    text = section.take("load_limit", str, rule="a part such as 70%")
    try:
        limit = None if text is None else parse_fraction(text)
    except ValueError as error:
        section.refuse("load_limit", str(error))
        return None
    if limit is not None and not 0.05 <= limit <= 1.0:
        section.refuse("load_limit", f"expected 5% to 100%, got {quote(text)}")
    return limit

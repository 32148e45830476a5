"""Sizes, durations, rates and parts as operators write them: ``2GiB``, ``100ms``, ``20Mbit``."""

from __future__ import annotations

import re

_SIZE_UNITS = {"B": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30, "TiB": 1 << 40}
_DURATION_UNITS = {"ms": 0.001, "s": 1.0, "min": 60.0, "h": 3600.0}
_RATE_UNITS = {"kbit": 1e3, "Mbit": 1e6, "Gbit": 1e9}
_QUANTITY = re.compile(r"(\d+(?:\.\d+)?)\s*([A-Za-z]+)")


def parse_size(text: str) -> int:
    """Return bytes for text such as ``512MiB``; raise ValueError with what was expected."""
    match = _QUANTITY.fullmatch(text.strip())
    if match is None or match[2] not in _SIZE_UNITS:
        raise ValueError(f"expected a size such as 512MiB ({', '.join(_SIZE_UNITS)}), got {text!r}")
    size = float(match[1]) * _SIZE_UNITS[match[2]]
    if size != int(size):
        raise ValueError(f"expected a whole number of bytes, got {text!r}")
    return int(size)


def parse_duration(text: str) -> float:
    """Return seconds for text such as ``100ms``; raise ValueError with what was expected."""
    match = _QUANTITY.fullmatch(text.strip())
    if match is None or match[2] not in _DURATION_UNITS:
        units = ", ".join(_DURATION_UNITS)
        raise ValueError(f"expected a duration such as 100ms ({units}), got {text!r}")
    return float(match[1]) * _DURATION_UNITS[match[2]]


def parse_rate(text: str) -> float:
    """Return bytes a second for text such as ``20Mbit``; ValueError with what was expected."""
    match = _QUANTITY.fullmatch(text.strip())
    if match is None or match[2] not in _RATE_UNITS:
        units = ", ".join(_RATE_UNITS)
        raise ValueError(f"expected a rate a second such as 20Mbit ({units}), got {text!r}")
    return float(match[1]) * _RATE_UNITS[match[2]] / 8


def parse_fraction(text: str) -> float:
    """Return 0.7 for ``70%``; ValueError with what was expected."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*%", text.strip())
    if match is None or not 0 < float(match[1]) <= 100:
        raise ValueError(f"expected a part above 0% and up to 100%, such as 70%, got {text!r}")
    return float(match[1]) / 100


def format_size(size_bytes: int) -> str:
    """Return a short text for people, such as ``1.5 GiB``."""
    for unit in ("TiB", "GiB", "MiB", "KiB"):
        if size_bytes >= _SIZE_UNITS[unit]:
            return f"{size_bytes / _SIZE_UNITS[unit]:.1f} {unit}"
    return f"{size_bytes} B"


def format_duration(seconds: float) -> str:
    """Return a short text for people, such as ``1.2 s`` or ``3 min 20 s``."""
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min"


def format_rate(bytes_per_second: float) -> str:
    """Return a short text for people, such as ``20.0 Mbit/s``."""
    bits = bytes_per_second * 8
    for unit in ("Gbit", "Mbit", "kbit"):
        if bits >= _RATE_UNITS[unit]:
            return f"{bits / _RATE_UNITS[unit]:.1f} {unit}/s"
    return f"{bits:.0f} bit/s"

"""Reading a mapping from a configuration file, key by key, collecting every violation.

msgspec stops at the first violation of a structure; an operator wants all of them. So each
value is converted on its own, and a Section remembers which keys exist, which were asked for,
and which belong to a later release.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Annotated, TypeVar

import msgspec

from replicator.units import parse_duration, parse_size

NAME_PATTERN = r"^[a-z][a-z0-9-]{0,14}\Z"
Name = Annotated[str, msgspec.Meta(pattern=NAME_PATTERN)]
NAME_RULE = "a name of 1 to 15 characters: a letter a-z, then a-z, 0-9 or -"
NOT_AVAILABLE = "not available in this release"
_LONGEST_QUOTE = 60

_T = TypeVar("_T")


def place_of(key: object) -> str:
    """Return a key as part of a place; one that is empty or has odd characters is quoted."""
    text = str(key)
    return text if text and text.isprintable() else repr(text)


def quote(value: object) -> str:
    """Return ``value`` as an operator would recognise it, shortened."""
    text = repr(value)
    return text if len(text) <= _LONGEST_QUOTE else text[:_LONGEST_QUOTE] + "..."


class Section:
    """One mapping of the file, at ``place``; ``violations`` is shared by all sections."""

    def __init__(self, value: object, place: str, violations: list[str]) -> None:
        self.place = place
        self.violations = violations
        self.readable = isinstance(value, dict)
        self._content: dict[object, object] = value if isinstance(value, dict) else {}
        if not self.readable:
            self.refuse("", f"expected a mapping, got {quote(value)}")

    def refuse(self, key: str, message: str) -> None:
        """Note a violation at ``key`` of this section (or at the section itself)."""
        self.violations.append(f"{self.at(key)}: {message}")

    def at(self, key: str) -> str:
        """Return the dotted place of ``key``."""
        return ".".join(part for part in (self.place, key) if part) or "file"

    def expect(self, known: tuple[str, ...], later: Mapping[str, str] | None = None) -> None:
        """Refuse keys that are not in ``known``; those in ``later`` by name, with their value."""
        for key in self._content:
            if later and key in later:
                self.refuse(place_of(key), f"{NOT_AVAILABLE}: {later[str(key)]}")
            elif key not in known:
                self.refuse(place_of(key), f"unknown key, expected one of: {', '.join(known)}")

    def has(self, key: str) -> bool:
        """Say whether the file gives ``key``."""
        return key in self._content

    def raw(self, key: str) -> object:
        """Return the value of ``key`` as YAML gave it, None when missing."""
        return self._content.get(key)

    def take(self, key: str, kind: type[_T], *, rule: str = "") -> _T | None:
        """Return the value of a required ``key`` as ``kind``, or None after a violation."""
        if key not in self._content:
            if self.readable:
                self.refuse(key, "missing" + (f", expected {rule}" if rule else ""))
            return None
        return self.convert(key, self._content[key], kind, rule=rule)

    def take_or(self, key: str, kind: type[_T], default: _T, *, rule: str = "") -> _T | None:
        """Return the value of ``key``, ``default`` when missing, or None after a violation."""
        return self.take(key, kind, rule=rule) if key in self._content else default

    def convert(self, key: str, value: object, kind: type[_T], *, rule: str = "") -> _T | None:
        """Return ``value`` as ``kind``, or None after a violation that states ``rule``."""
        try:
            return msgspec.convert(value, kind)
        except msgspec.ValidationError as error:
            expected = f"expected {rule}" if rule else str(error).replace("`", "")
            self.refuse(key, f"{expected}, got {quote(value)}")
            return None

    def section(self, key: str) -> Section:
        """Return the mapping at ``key``; a missing one is a violation and reads as empty."""
        if key in self._content:
            return Section(self._content[key], self.at(key), self.violations)
        if self.readable:
            self.refuse(key, "missing, expected a mapping")
        absent = Section({}, self.at(key), self.violations)
        absent.readable = False
        return absent

    def named(self, noun: str) -> Iterator[tuple[str, object]]:
        """Yield each (name, value) of a mapping of named things, refusing wrong names."""
        for key, value in self._content.items():
            if self.convert(place_of(key), key, Name, rule=NAME_RULE) is None:
                continue
            yield str(key), value
        if self.readable and not self._content:
            self.refuse("", f"expected at least one {noun}")

    def size(self, key: str, value: object) -> int | None:
        """Return ``value`` as bytes; integers are bytes, texts carry their unit."""
        if isinstance(value, int) and not isinstance(value, bool):
            return value
        text = self.convert(key, value, str, rule="a size such as 512MiB")
        try:
            return None if text is None else parse_size(text)
        except (ValueError, OverflowError) as error:
            self.refuse(key, str(error))
            return None

    def duration(self, key: str) -> float | None:
        """Return the value of a required ``key`` in seconds."""
        return self.measure(key, parse_duration, "a duration such as 100ms")

    def measure(self, key: str, parse: Callable[[str], float], rule: str) -> float | None:
        """Return the text at a required ``key`` as ``parse`` reads it, None after a violation."""
        text = self.take(key, str, rule=rule)
        try:
            return None if text is None else parse(text)
        except (ValueError, OverflowError) as error:
            self.refuse(key, str(error))
            return None

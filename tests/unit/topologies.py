"""A good topology, and how tests change one thing in it."""

from __future__ import annotations

import copy
from typing import Any

import yaml

GOOD = """\
naming: {iqn_prefix: "iqn.2026-11.org.example.towline"}
groups:
  orders:
    volumes: {db: 2GiB, wal: 512MiB}
    journal: {size: 1GiB, when_full: hold}
    sites:
      a: {primary: true}
      b: {upstream: a, link: pull, interval: {inputs: [records], min: 100ms, max: 5s}}
      c: {upstream: b, link: pull, interval: {fixed: 500ms}}
sites:
  a: {address: 198.51.100.11, devices: "lvm:towline"}
  b: {address: 198.51.100.12, devices: "lvm:towline"}
  c: {address: 198.51.100.13, devices: "directory:state/c"}
hosts:
  app1: {initiator: "iqn.2026-11.org.example:app1", groups: [orders]}
"""

REMOVED = object()
"""As a value in a change: the key is taken out."""


def changed(changes: dict[str, object]) -> str:
    """Return GOOD with the value at each dotted place replaced (or removed)."""
    content: dict[str, Any] = copy.deepcopy(yaml.safe_load(GOOD))
    for place, value in changes.items():
        *parents, last = place.split("/")
        section = content
        for parent in parents:
            section = section[parent]
        if value is REMOVED:
            del section[last]
        else:
            section[last] = value
    return yaml.safe_dump(content, sort_keys=False)


def renamed(section_place: str, old: str, new: object) -> str:
    """Return GOOD with key ``old`` of a section called ``new``, in its old place."""
    content: dict[str, Any] = copy.deepcopy(yaml.safe_load(GOOD))
    section = content
    for parent in section_place.split("/"):
        section = section[parent]
    items = [(new if key == old else key, value) for key, value in section.items()]
    section.clear()
    section.update(items)
    return yaml.safe_dump(content, sort_keys=False)

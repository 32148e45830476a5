"""From the topology's YAML text to a Topology, or one ConfigError with every violation.

Pure: text in, values out; nothing is looked up on the machine, so ``replicatorctl config check``
says the same everywhere and a wrong file is refused before a device is touched. What only later
releases do is refused by name and never ignored.
"""

from __future__ import annotations

import ipaddress
import os.path
import re
from typing import get_args

from replicator.codec.section import NOT_AVAILABLE, Section, quote
from replicator.codec.topology import (
    Devices,
    Group,
    GroupSite,
    Host,
    JournalPolicy,
    Link,
    Site,
    Topology,
    Volume,
    WhenFull,
)
from replicator.codec.topology_interval import read_interval
from replicator.codec.topology_restore import read_restore
from replicator.codec.topology_rules import check_group_sites, check_whole
from replicator.codec.yamltext import parse_yaml
from replicator.errors import ConfigError
from replicator.model import BLOCK
from replicator.units import format_duration, format_size, parse_rate

DEFAULT_IQN_PREFIX = "iqn.2026-11.org.example.towline"
MAXIMUM_VOLUMES = 64
MAXIMUM_VOLUME_ID = 65_535
MAXIMUM_SITES = 12
MAXIMUM_VOLUME_BYTES = 64 << 40
MINIMUM_JOURNAL_BYTES = 16 << 20
"""A batch is at most an eighth of the ring, and one host write of 1 MiB must fit in a batch."""
MAXIMUM_JOURNAL_BYTES = 16 << 40
MINIMUM_VERIFY_RATE = 64e3 / 8
MAXIMUM_VERIFY_RATE = 1e12 / 8
MAXIMUM_IQN_LENGTH = 223
DEFAULT_THROTTLE_SECONDS = 2.0
MAXIMUM_THROTTLE_SECONDS = 20.0
"""Hosts wait that long: it must stay below what an initiator takes for a dead device."""
_MAXIMUM_PREFIX_LENGTH = 160
_MAXIMUM_DIRECTORY_LENGTH = 80
"""A Unix socket's path holds 107 bytes, of which the group's name and suffix need up to 21."""

_IQN = re.compile(
    r"iqn\.\d{4}-(0[1-9]|1[0-2])(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?){2,}(:[a-z0-9.:-]+)?"
)
_VOLUME_GROUP = re.compile(r"[A-Za-z0-9+_.][A-Za-z0-9+_.-]{0,63}")
_LINKS: tuple[Link, ...] = ("pull", "sync-or-stop", "sync-or-degrade")


def parse_topology(text: str, where: str = "topology.yml", folder: str = "/") -> Topology:
    """Return the Topology that ``text`` describes.

    ``where`` names the file in messages; relative directories are taken from ``folder``, which
    should be absolute. Raises ConfigError with all violations, each beginning with its place.
    """
    content, violations = parse_yaml(text)
    if content is None:
        raise ConfigError(where, violations or ["file: expected groups and sites, got nothing"])
    root = Section(content, "", violations)
    root.expect(("naming", "groups", "sites", "hosts"))
    topology = Topology(
        iqn_prefix=_read_prefix(root),
        sites=_read_sites(root.section("sites"), folder),
        groups=_read_groups(root.section("groups")),
        hosts=_read_hosts(root),
    )
    if root.readable:
        check_whole(topology, root)
    if violations:
        raise ConfigError(where, violations)
    return topology


def _read_prefix(root: Section) -> str:
    if not root.has("naming"):
        return DEFAULT_IQN_PREFIX
    naming = root.section("naming")
    naming.expect(("iqn_prefix",))
    prefix = naming.take_or("iqn_prefix", str, DEFAULT_IQN_PREFIX)
    if prefix is None:
        return DEFAULT_IQN_PREFIX
    if not _IQN.fullmatch(prefix) or ":" in prefix or len(prefix) > _MAXIMUM_PREFIX_LENGTH:
        naming.refuse(
            "iqn_prefix",
            f"bad IQN prefix, expected iqn.YYYY-MM.reversed.domain without a colon, "
            f"at most {_MAXIMUM_PREFIX_LENGTH} characters, got {quote(prefix)}",
        )
    return prefix


def _read_sites(section: Section, folder: str) -> tuple[Site, ...]:
    sites = []
    for name, value in section.named("site"):
        one = Section(value, section.at(name), section.violations)
        one.expect(("address", "devices"))
        address = _read_address(one)
        devices = _read_devices(one, folder)
        sites.append(Site(name=name, address=address, devices=devices))
    return tuple(sites)


def _read_address(section: Section) -> str:
    text = section.take("address", str, rule="an IPv4 address")
    if text is None:
        return ""
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        section.refuse("address", f"bad address, expected an IPv4 address, got {quote(text)}")
        return ""
    if address.version == 6:
        section.refuse("address", f"{NOT_AVAILABLE}: IPv6 addresses, got {quote(text)}")
    elif address.is_multicast or address.is_unspecified or text == "255.255.255.255":
        section.refuse(
            "address", f"bad address, expected a unicast IPv4 address, got {quote(text)}"
        )
    return text


def _read_devices(section: Section, folder: str) -> Devices:
    unknown = Devices(kind="directory", path="")
    text = section.take("devices", str, rule="lvm:VOLUME-GROUP or directory:PATH")
    if text is None:
        return unknown
    kind, colon, path = text.partition(":")
    if kind not in ("lvm", "directory") or not colon or not path.strip():
        section.refuse("devices", f"expected lvm:VOLUME-GROUP or directory:PATH, got {quote(text)}")
        return unknown
    if kind == "lvm":
        if not _VOLUME_GROUP.fullmatch(path) or path in (".", ".."):
            section.refuse("devices", f"bad LVM volume group name {quote(path)}")
        return Devices(kind="lvm", path=path)
    directory = os.path.normpath(os.path.join(folder, path))
    if not path.isprintable() or len(os.fsencode(directory)) > _MAXIMUM_DIRECTORY_LENGTH:
        section.refuse(
            "devices",
            f"expected a directory of at most {_MAXIMUM_DIRECTORY_LENGTH} bytes (it holds Unix "
            f"sockets), got {quote(directory)}",
        )
    return Devices(kind="directory", path=directory)


def _read_groups(section: Section) -> tuple[Group, ...]:
    groups = []
    for name, value in section.named("group"):
        one = Section(value, section.at(name), section.violations)
        one.expect(("volumes", "journal", "sites", "verify"))
        group = Group(
            name=name,
            volumes=_read_volumes(one.section("volumes")),
            journal=_read_journal(one.section("journal")),
            sites=_read_group_sites(one.section("sites")),
            verify_rate=_read_verify(one),
        )
        check_group_sites(group, one)
        groups.append(group)
    return tuple(groups)


def _read_verify(group: Section) -> float | None:
    if not group.has("verify"):
        return None
    section = group.section("verify")
    section.expect(("rate",))
    rate = section.measure("rate", parse_rate, "a rate such as 80Mbit")
    if rate is not None and not MINIMUM_VERIFY_RATE <= rate <= MAXIMUM_VERIFY_RATE:
        section.refuse("rate", f"expected 64kbit to 1000Gbit, got {quote(section.raw('rate'))}")
    return rate


def _read_volumes(section: Section) -> tuple[Volume, ...]:
    volumes: list[Volume] = []
    for place, (name, value) in enumerate(section.named("volume"), start=1):
        volume_id: int | None = place
        size_key, size = name, value
        if isinstance(value, dict):
            one = Section(value, section.at(name), section.violations)
            one.expect(("id", "size"))
            volume_id = one.take_or("id", int, place, rule="a volume id (a whole number)")
            if not one.has("size"):
                one.refuse("size", "missing, expected a size such as 512MiB")
                continue
            size_key, size = f"{name}.size", one.raw("size")
        size_bytes = _bounded_size(section, size_key, size, BLOCK, MAXIMUM_VOLUME_BYTES)
        if volume_id is not None and not 1 <= volume_id <= MAXIMUM_VOLUME_ID:
            section.refuse(f"{name}.id", f"expected 1 to {MAXIMUM_VOLUME_ID}, got {volume_id}")
        elif volume_id in (taken := {each.id: each.name for each in volumes}):
            section.refuse(f"{name}.id", f"duplicate id {volume_id}, also of {taken[volume_id]}")
        if name == "journal":
            section.refuse(name, "reserved: a volume may not be called journal")
        volumes.append(Volume(id=volume_id or 0, name=name, size_bytes=size_bytes or 0))
    if len(volumes) > MAXIMUM_VOLUMES:
        section.refuse("", f"expected at most {MAXIMUM_VOLUMES} volumes, got {len(volumes)}")
    return tuple(volumes)


def _bounded_size(
    section: Section, key: str, value: object, smallest: int, largest: int
) -> int | None:
    size = section.size(key, value)
    if size is None:
        return None
    if not smallest <= size <= largest:
        bounds = f"{format_size(smallest)} to {format_size(largest)}"
        section.refuse(key, f"bad size, expected {bounds}, got {quote(value)}")
    elif size % BLOCK:
        section.refuse(key, f"bad size, expected a multiple of {BLOCK} bytes, got {quote(value)}")
    return size


def _read_journal(section: Section) -> JournalPolicy:
    section.expect(("size", "when_full", "throttle_for"))
    size = 0
    if section.has("size"):
        size = (
            _bounded_size(
                section, "size", section.raw("size"), MINIMUM_JOURNAL_BYTES, MAXIMUM_JOURNAL_BYTES
            )
            or 0
        )
    elif section.readable:
        section.refuse("size", "missing, expected a size such as 1GiB")
    return _read_when_full(section, size)


def _read_when_full(section: Section, size: int) -> JournalPolicy:
    given = section.take_or("when_full", str, "detach")
    policy: WhenFull = next((each for each in get_args(WhenFull) if each == given), "detach")
    if given is not None and given != policy:
        known = ", ".join(get_args(WhenFull))
        section.refuse("when_full", f"unknown policy {quote(given)}, expected one of: {known}")
    if not section.has("throttle_for"):
        seconds = DEFAULT_THROTTLE_SECONDS if policy == "throttle" else 0.0
        return JournalPolicy(size_bytes=size, when_full=policy, throttle_seconds=seconds)
    if policy != "throttle":
        section.refuse("throttle_for", f"contradiction: only with when_full throttle, not {policy}")
    throttle = section.duration("throttle_for") or 0.0
    if not 0 <= throttle <= MAXIMUM_THROTTLE_SECONDS:
        longest = format_duration(MAXIMUM_THROTTLE_SECONDS)
        place = quote(section.raw("throttle_for"))
        section.refuse("throttle_for", f"expected 0s to {longest}, got {place}")
    return JournalPolicy(size_bytes=size, when_full=policy, throttle_seconds=throttle)


def _read_group_sites(section: Section) -> tuple[GroupSite, ...]:
    sites = []
    for name, value in section.named("site"):
        one = Section(value, section.at(name), section.violations)
        sites.append(_read_group_site(name, one))
    if len(sites) > MAXIMUM_SITES:
        section.refuse("", f"expected at most {MAXIMUM_SITES} sites, got {len(sites)}")
    return tuple(sites)


def _read_group_site(name: str, section: Section) -> GroupSite:
    section.expect(
        ("primary", "upstream", "link", "data", "interval", "rpo", "restore"),
        {"link_limit": "link_limit"},
    )
    primary = section.take_or("primary", bool, False) or False
    upstream = section.take("upstream", str) if section.has("upstream") else None
    link = _read_link(section)
    data = _read_data(section, primary)
    interval, rpo_seconds = read_interval(section)
    restore = read_restore(section)
    if primary:
        for key in ("upstream", "link", "interval", "rpo", "restore"):
            if section.has(key):
                section.refuse(key, "the primary pulls from nobody: remove this, or primary: true")
    elif not section.has("upstream") and section.readable:
        section.refuse("upstream", "missing: a site is the primary or names its upstream")
    for key in ("interval", "rpo"):
        if link != "pull" and section.has(key):
            section.refuse(
                key, f"a site with link {link} does not pull: its primary writes its journal"
            )
    return GroupSite(
        name=name,
        primary=primary,
        upstream=upstream,
        link=link,
        data=data,
        interval=interval,
        restore=restore,
        rpo_seconds=rpo_seconds,
    )


def _read_link(section: Section) -> Link:
    text = section.take_or("link", str, "pull")
    for link in _LINKS:
        if text == link:
            return link
    if text is not None:
        section.refuse("link", f"unknown link {quote(text)}, expected one of: {', '.join(_LINKS)}")
    return "pull"


def _read_data(section: Section, primary: bool) -> bool:
    """Return whether the site has data volumes: ``data: none`` is the only thing to say."""
    if not section.has("data"):
        return True
    if section.raw("data") != "none":
        section.refuse("data", f"expected none or nothing at all, got {quote(section.raw('data'))}")
    elif primary:
        section.refuse("data", "the primary needs its data volumes: hosts write them")
    elif section.has("restore"):
        section.refuse("data", "a site without data volumes restores nothing: remove restore")
    return False


def _read_hosts(root: Section) -> tuple[Host, ...]:
    if not root.has("hosts"):
        return ()
    section = root.section("hosts")
    hosts = []
    for name, value in section.named("host"):
        one = Section(value, section.at(name), section.violations)
        one.expect(("initiator", "groups"))
        initiator = one.take("initiator", str, rule="an IQN") or ""
        if initiator and (not _IQN.fullmatch(initiator) or len(initiator) > MAXIMUM_IQN_LENGTH):
            one.refuse(
                "initiator",
                f"bad IQN, expected iqn.YYYY-MM.reversed.domain:name in lower case, "
                f"got {quote(initiator)}",
            )
        groups = one.take("groups", list[str], rule="a list of groups") or []
        hosts.append(Host(name=name, initiator=initiator, groups=tuple(groups)))
    return tuple(hosts)

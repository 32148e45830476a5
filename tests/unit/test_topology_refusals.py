"""Bad topologies (fault F42): each is refused with the place and what was expected there."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from replicator.codec.section import NAME_RULE, NOT_AVAILABLE, place_of
from replicator.codec.topology_file import parse_topology
from replicator.errors import ConfigError
from tests import tally
from tests.unit.topologies import GOOD, REMOVED, changed, renamed

Case = tuple[str, str, list[str]]
"""A name, a bad file, and for each violation the place and words that it must hold."""

ORDERS = "groups/orders"
B = f"{ORDERS}/sites/b"
NOT_TEXT = {"number": 7, "list": ["x"], "mapping": {"x": 1}, "null": None, "boolean": True}
NOT_MAPPING = {"number": 7, "list": ["x"], "text": "x", "null": None, "boolean": True}
BAD_NAMES: dict[str, object] = {
    "upper": "Orders",
    "digit-first": "1a",
    "dash-first": "-a",
    "underscore": "a_b",
    "dot": "a.b",
    "space": "a b",
    "slash": "a/b",
    "too-long": "a" * 16,
    "empty": "",
    "newline": "a\n",
    "number": 12,
    "boolean": True,
    "umlaut": "ä",
}


def _dotted(place: str) -> str:
    return place.replace("/", ".")


def _names() -> Iterator[Case]:
    for section, old in (
        ("groups", "orders"),
        (f"{ORDERS}/volumes", "db"),
        (f"{ORDERS}/sites", "c"),
        ("sites", "c"),
        ("hosts", "app1"),
    ):
        for how, new in BAD_NAMES.items():
            place = f"{_dotted(section)}.{place_of(new)}"
            yield (
                f"name-{section}-{how}",
                renamed(section, old, new),
                [f"{place}: expected {NAME_RULE}"],
            )


def _unknown_keys() -> Iterator[Case]:
    for section in ("", "naming", ORDERS, f"{ORDERS}/journal", B, f"{B}/interval", "sites/a"):
        place = f"{section}/colour" if section else "colour"
        text = changed({place: "red"})
        yield f"unknown-{place}", text, [f"{_dotted(place)}: unknown key, expected one of"]
    yield "unknown-host-key", changed({"hosts/app1/x": 1}), ["hosts.app1.x: unknown key"]
    yield (
        "unknown-volume-key",
        changed({f"{ORDERS}/volumes/db": {"size": "1MiB", "thin": True}}),
        ["groups.orders.volumes.db.thin: unknown key"],
    )


def _missing_keys() -> Iterator[Case]:
    for place in (
        "groups",
        "sites",
        f"{ORDERS}/volumes",
        f"{ORDERS}/journal",
        f"{ORDERS}/sites",
        f"{ORDERS}/journal/size",
        f"{B}/upstream",
        f"{B}/interval/inputs",
        f"{B}/interval/min",
        f"{B}/interval/max",
        "sites/a/address",
        "sites/a/devices",
        "hosts/app1/initiator",
        "hosts/app1/groups",
    ):
        yield f"missing-{place}", changed({place: REMOVED}), [f"{_dotted(place)}: missing"]
    text = changed({f"{ORDERS}/volumes/db": {"id": 1}})
    yield "missing-volume-size", text, ["groups.orders.volumes.db.size: missing"]


def _wrong_types() -> Iterator[Case]:
    for place in ("groups", "sites", "hosts", "naming", ORDERS, f"{ORDERS}/volumes", B, "sites/a"):
        for kind, value in NOT_MAPPING.items():
            text = changed({place: value})
            yield f"type-{place}-{kind}", text, [f"{_dotted(place)}: expected a mapping"]
    for place in (f"{ORDERS}/journal/when_full", f"{B}/upstream", f"{B}/link", "sites/a/address"):
        for kind, value in NOT_TEXT.items():
            yield f"type-{place}-{kind}", changed({place: value}), [f"{_dotted(place)}: "]
    for place in (f"{ORDERS}/sites/a/primary",):
        for kind, value in {"text": "true", "number": 1, "null": None}.items():
            text = changed({place: value})
            yield f"type-{place}-{kind}", text, [f"{_dotted(place)}: Expected bool, got"]
    for place in (f"{B}/interval/inputs", "hosts/app1/groups"):
        for kind, value in {"text": "records", "mapping": {}, "numbers": [1]}.items():
            text = changed({place: value})
            yield f"type-{place}-{kind}", text, [f"{_dotted(place)}: expected a list of"]


def _empty_sections() -> Iterator[Case]:
    for place, noun in (
        ("groups", "group"),
        ("sites", "site"),
        ("hosts", "host"),
        (f"{ORDERS}/volumes", "volume"),
        (f"{ORDERS}/sites", "site"),
    ):
        text = changed({place: {}})
        yield f"empty-{place}", text, [f"{_dotted(place)}: expected at least one {noun}"]


def _sizes() -> Iterator[Case]:
    volume = f"{ORDERS}/volumes/db"
    for how, value, words in (
        ("zero", "0B", "bad size, expected 4.0 KiB to"),
        ("zero-number", 0, "bad size, expected 4.0 KiB to"),
        ("negative-number", -4096, "bad size, expected 4.0 KiB to"),
        ("negative-text", "-1GiB", "expected a size such as 512MiB"),
        ("not-blocks", "10000B", "expected a multiple of 4096 bytes"),
        ("not-blocks-number", 4097, "expected a multiple of 4096 bytes"),
        ("half-byte", "0.3B", "expected a whole number of bytes"),
        ("absurd", "65TiB", "bad size, expected 4.0 KiB to 64.0 TiB"),
        ("overflow", "9" * 400 + "GiB", "volumes.db: "),
        ("wrong-unit", "2GB", "expected a size such as 512MiB"),
        ("no-unit", "2048x", "expected a size such as 512MiB"),
        ("word", "big", "expected a size such as 512MiB"),
        ("boolean", True, "expected a size such as 512MiB"),
        ("float", 1.5, "expected a size such as 512MiB"),
        ("null", None, "expected a size such as 512MiB"),
    ):
        yield f"volume-size-{how}", changed({volume: value}), ["groups.orders.volumes.db: ", words]
    for how, value, words in (
        ("too-small", "15MiB", "bad size, expected 16.0 MiB to"),
        ("one-block-less", (16 << 20) - 4096, "bad size, expected 16.0 MiB to"),
        ("absurd", "17TiB", "to 16.0 TiB"),
        ("not-blocks", (16 << 20) + 1, "expected a multiple of 4096 bytes"),
        ("wrong-unit", "1G", "expected a size such as 512MiB"),
    ):
        text = changed({f"{ORDERS}/journal/size": value})
        yield f"journal-size-{how}", text, ["groups.orders.journal.size: ", words]


def _volume_ids() -> Iterator[Case]:
    volume = f"{ORDERS}/volumes/wal"
    for how, value, words in (
        ("zero", 0, "expected 1 to 65535"),
        ("negative", -1, "expected 1 to 65535"),
        ("huge", 65_536, "expected 1 to 65535"),
        ("text", "two", "expected a volume id"),
        ("taken", 1, "duplicate id 1, also of db"),
    ):
        text = changed({volume: {"id": value, "size": "1MiB"}})
        yield f"volume-id-{how}", text, ["groups.orders.volumes.wal.id: ", words]
    text = renamed(f"{ORDERS}/volumes", "wal", "journal")
    yield "volume-called-journal", text, ["groups.orders.volumes.journal: reserved"]
    many = {f"v{number}": "1MiB" for number in range(65)}
    yield (
        "volumes-too-many",
        changed({f"{ORDERS}/volumes": many}),
        ["groups.orders.volumes: expected at most 64 volumes, got 65"],
    )


def _upstreams() -> Iterator[Case]:
    sites = f"{ORDERS}/sites"
    one_primary = "groups.orders.sites: expected exactly one primary, got"
    yield (
        "primary-none",
        changed({f"{sites}/a": {"upstream": "b"}, B: {"upstream": "a"}}),
        [f"{one_primary} none", "sites.a.upstream: cycle", "sites.b.upstream: cycle"],
    )
    yield "primary-two", changed({B: {"primary": True}}), [f"{one_primary} a, b"]
    yield (
        "primary-false-without-upstream",
        changed({f"{sites}/a": {"primary": False}}),
        ["sites.a.upstream: missing", f"{one_primary} none"],
    )
    for key, value in (("upstream", "b"), ("link", "pull"), ("interval", {"fixed": "1s"})):
        yield (
            f"primary-with-{key}",
            changed({f"{sites}/a/{key}": value}),
            [f"groups.orders.sites.a.{key}: the primary pulls from nobody"],
        )
    for how, changes, words in (
        ("self", {f"{B}/upstream": "b"}, "sites.b.upstream: b cannot be its own upstream"),
        ("unknown", {f"{B}/upstream": "x"}, "sites.b.upstream: unknown site 'x'"),
        ("empty", {f"{B}/upstream": ""}, "sites.b.upstream: unknown site ''"),
        ("cycle", {f"{B}/upstream": "c"}, "sites.b.upstream: cycle of upstreams: b -> c -> b"),
    ):
        yield f"upstream-{how}", changed(changes), [f"groups.orders.{words}"]
    cut_off = {"upstream": "e"}, {"upstream": "d"}
    yield (
        "upstream-unreachable",
        changed(
            {f"{sites}/c": {"upstream": "d"}, f"{sites}/d": cut_off[0], f"{sites}/e": cut_off[1]}
        ),
        [
            "groups.orders.sites.c.upstream: cycle of upstreams: c -> d -> e -> d",
            "groups.orders.sites.d.upstream: cycle of upstreams: d -> e -> d",
            "groups.orders.sites.d: unknown site 'd'",
        ],
    )
    yield (
        "site-unknown",
        changed({"sites/c": REMOVED}),
        ["groups.orders.sites.c: unknown site 'c', the file's sites are: a, b"],
    )
    many = {f"s{number}": {"upstream": "a"} for number in range(16)}
    yield (
        "sites-too-many",
        changed({sites: {"a": {"primary": True}, **many}}),
        ["groups.orders.sites: expected at most 12 sites, got 17"],
    )


def _intervals() -> Iterator[Case]:
    interval = f"{B}/interval"
    place = "groups.orders.sites.b.interval"
    good = {"inputs": ["records"], "min": "100ms", "max": "5s"}
    for how, value, words in (
        ("order", good | {"min": "6s"}, f"{place}.min: bounds out of order"),
        ("min-tiny", good | {"min": "1ms"}, f"{place}.min: expected 10 ms to 1 h"),
        ("min-zero", good | {"min": "0s"}, f"{place}.min: expected 10 ms to 1 h"),
        ("max-huge", good | {"max": "2h"}, f"{place}.max: expected 10 ms to 1 h"),
        ("min-unit", good | {"min": "100"}, f"{place}.min: expected a duration"),
        ("min-number", good | {"min": 1}, f"{place}.min: expected a duration"),
        ("min-negative", good | {"min": "-1s"}, f"{place}.min: expected a duration"),
        ("fixed-with-inputs", {"fixed": "1s", "inputs": ["records"]}, f"{place}.fixed: a fixed"),
        ("fixed-with-max", {"fixed": "1s", "max": "2s"}, "excludes max"),
        ("fixed-tiny", {"fixed": "1ms"}, f"{place}.fixed: expected 10 ms to 1 h"),
        ("fixed-null", {"fixed": None}, f"{place}.fixed: expected a duration"),
        ("inputs-none", good | {"inputs": []}, f"{place}.inputs: expected at least one"),
        ("inputs-unknown", good | {"inputs": ["moon"]}, f"{place}.inputs: unknown input 'moon'"),
        ("inputs-twice", good | {"inputs": ["records"] * 2}, f"{place}.inputs: duplicate"),
        ("text", "500ms", f"{place}: expected a mapping"),
        ("empty", {}, f"{place}.inputs: missing"),
    ):
        yield f"interval-{how}", changed({interval: value}), [words]


def _sync_links() -> Iterator[Case]:
    """Near sites: who may be one, and what it cannot do besides."""
    near = {"upstream": "a", "link": "sync-or-stop"}
    c = f"{ORDERS}/sites/c"
    places = f"{_dotted(ORDERS)}.sites"
    for how, changes, words in (
        ("interval", {B: near | {"interval": {"fixed": "1s"}}}, f"{places}.b.interval: a site"),
        ("rpo", {B: near | {"rpo": "1s"}}, f"{places}.b.rpo: a site with link"),
        (
            "not-at-the-primary",
            {B: {"upstream": "a"}, c: {"upstream": "b", "link": "sync-or-degrade"}},
            f"{places}.c.upstream: a sync link begins at the primary a, not at b",
        ),
        ("second", {B: near, c: dict(near)}, f"{places}.c.link: expected at most one sync link"),
        ("primary", {f"{ORDERS}/sites/a": {"primary": True, "link": "sync-or-stop"}}, "a.link:"),
        (
            "primary-without-data",
            {f"{ORDERS}/sites/a": {"primary": True, "data": "none"}},
            f"{places}.a.data: the primary needs",
        ),
        ("no-upstream", {B: {"link": "sync-or-stop"}}, f"{places}.b.upstream: missing"),
        ("data-word", {B: near | {"data": "some"}}, f"{places}.b.data: expected none"),
        ("data-list", {B: near | {"data": []}}, f"{places}.b.data: expected none"),
        ("data-null", {B: near | {"data": None}}, f"{places}.b.data: expected none"),
        ("link-list", {B: {"upstream": "a", "link": ["pull"]}}, f"{places}.b.link:"),
        ("link-plain-sync", {B: {"upstream": "a", "link": "sync"}}, "unknown link 'sync'"),
    ):
        yield f"sync-{how}", changed(dict(changes)), [words]


def _interval_contradictions() -> Iterator[Case]:
    place = "groups.orders.sites.b.interval"
    every = {
        "inputs": ["records", "traffic", "capacity", "load", "source"],
        "min": "100ms",
        "max": "30s",
        "traffic_limit": "20Mbit",
        "load_limit": "70%",
    }
    for how, value, words in (
        ("limit-missing", {"inputs": ["traffic"]}, "traffic_limit: missing: the input traffic"),
        ("limit-alone", {"inputs": ["records"]}, "traffic_limit: contradiction: traffic_limit wi"),
        ("load-alone", {"inputs": ["records"]}, "load_limit: contradiction: load_limit without"),
        ("limit-unit", {"traffic_limit": "20MB"}, "traffic_limit: expected a rate a second such"),
        ("limit-number", {"traffic_limit": 20}, "traffic_limit: expected a rate such as 20Mbit"),
        ("limit-tiny", {"traffic_limit": "1kbit"}, "traffic_limit: expected 64kbit to 1000Gbit"),
        ("load-unit", {"load_limit": "0.7"}, "load_limit: expected a part above 0% and up to 100%"),
        ("load-zero", {"load_limit": "0%"}, "load_limit: expected a part above 0%"),
        ("load-much", {"load_limit": "101%"}, "load_limit: expected a part above 0%"),
        ("bounds-order", {"load": {"min": "9s", "max": "1s"}}, "bounds.load: bounds out of order"),
        ("bounds-low", {"load": {"min": "50ms"}}, "bounds.load: bounds outside of interval.min"),
        ("bounds-high", {"source": {"max": "31s"}}, "bounds.source: bounds outside of"),
        ("bounds-tiny", {"load": {"min": "1ms"}}, "bounds.load.min: expected 10 ms to 1 h"),
        ("bounds-key", {"load": {"limit": "1s"}}, "bounds.load.limit: unknown key"),
        ("bounds-name", {"moon": {"min": "1s"}}, "bounds.moon: unknown key, expected one of"),
        ("bounds-text", {"load": "1s"}, "bounds.load: expected a mapping"),
    ):
        if how.startswith("bounds"):
            value = {"bounds": value}
        merged: dict[str, object] = every | value  # type: ignore[operator]
        if how == "limit-missing":
            del merged["traffic_limit"], merged["load_limit"]
        yield f"interval-{how}", changed({f"{B}/interval": merged}), [f"{place}.{words}"]
    unused = {"inputs": ["records"], "min": "1s", "max": "2s", "bounds": {"load": {"min": "1s"}}}
    yield (
        "interval-bounds-unused",
        changed({f"{B}/interval": unused}),
        [f"{place}.bounds.load: contradiction: bounds without the input load"],
    )
    for how, changes, words in (
        ("tiny", {"rpo": "1ms"}, "rpo: expected 100 ms to 24 h"),
        ("number", {"rpo": 5}, "rpo: expected a duration"),
        ("fixed", {"rpo": "1s", "interval": {"fixed": "2s"}}, "rpo: contradiction: interval.fixed"),
        ("min", {"rpo": "1s", "interval": every | {"min": "2s"}}, "rpo: contradiction: interval.m"),
    ):
        text = changed({f"{B}/{key}": value for key, value in changes.items()})
        yield f"rpo-{how}", text, [f"groups.orders.sites.b.{words}"]
    yield (
        "rpo-primary",
        changed({f"{ORDERS}/sites/a/rpo": "5s"}),
        ["groups.orders.sites.a.rpo: the primary pulls from nobody"],
    )
    for how, value, words in (
        ("unit", {"load_limit": "0.7"}, "load_limit: expected a part above 0%"),
        ("little", {"load_limit": "1%"}, "load_limit: expected 5% to 100%"),
        ("delay", {"delay": "200h"}, "delay: expected 0s to 168 h"),
        ("number", {"delay": 5}, "delay: expected a duration"),
        ("key", {"speed": "1s"}, "speed: unknown key"),
    ):
        text = changed({f"{B}/restore": value})
        yield f"restore-{how}", text, [f"groups.orders.sites.b.restore.{words}"]
    wrong = {"inputs": ["load", "moon"], "min": "9s", "max": "1s", "traffic_limit": "20Mbit"}
    yield (
        "interval-all-at-once",
        changed({f"{B}/interval": wrong, f"{B}/rpo": "1s"}),
        [
            f"{place}.min: bounds out of order",
            f"{place}.inputs: unknown input 'moon'",
            f"{place}.traffic_limit: contradiction",
            "groups.orders.sites.b.rpo: contradiction",
        ],
    )


def _verify() -> Iterator[Case]:
    for how, value, words in (
        ("empty", {}, "verify.rate: missing, expected a rate such as 80Mbit"),
        ("number", {"rate": 5}, "verify.rate: expected a rate such as 80Mbit"),
        ("unit", {"rate": "10MiB"}, "verify.rate: expected a rate a second such as 20Mbit"),
        ("slow", {"rate": "1kbit"}, "verify.rate: expected 64kbit to 1000Gbit"),
        ("key", {"rate": "80Mbit", "every": "1h"}, "verify.every: unknown key"),
        ("text", "80Mbit", "verify: expected a mapping"),
    ):
        yield f"verify-{how}", changed({f"{ORDERS}/verify": value}), [f"groups.orders.{words}"]


def _later_releases() -> Iterator[Case]:
    for place, value, name in (("sites/a/address", "2001:db8::1", "IPv6"),):
        words = [f"{_dotted(place)}: {NOT_AVAILABLE}: {name}"]
        yield f"later-{name}", changed({place: value}), words
    for how, value, words in (
        ("policy", {"when_full": "panic"}, "when_full: unknown policy 'panic'"),
        ("hold", {"when_full": "hold", "throttle_for": "2s"}, "throttle_for: contradiction"),
        ("detach", {"when_full": "detach", "throttle_for": "2s"}, "throttle_for: contradiction"),
        ("long", {"when_full": "throttle", "throttle_for": "1h"}, "throttle_for: expected 0s to"),
        ("number", {"when_full": "throttle", "throttle_for": 2}, "throttle_for: expected a dur"),
    ):
        text = changed({f"{ORDERS}/journal": {"size": "64MiB", **value}})
        yield f"full-{how}", text, [f"groups.orders.journal.{words}"]
    yield "unknown-link", changed({f"{B}/link": "push"}), ["sites.b.link: unknown link 'push'"]
    text = changed({f"{ORDERS}/journal/when_full": "drop"})
    yield "unknown-policy", text, ["groups.orders.journal.when_full: unknown policy 'drop'"]


def _sites() -> Iterator[Case]:
    for how, value in (
        ("word", "here"),
        ("octet", "198.51.100.256"),
        ("short", "198.51.100"),
        ("port", "198.51.100.1:3260"),
        ("network", "198.51.100.0/24"),
        ("leading-zero", "198.51.100.011"),
        ("multicast", "224.0.0.1"),
        ("unspecified", "0.0.0.0"),
        ("broadcast", "255.255.255.255"),
        ("empty", ""),
    ):
        text = changed({"sites/a/address": value})
        yield f"address-{how}", text, ["sites.a.address: bad address, expected a"]
    text = changed({"sites/b/address": "198.51.100.11"})
    yield "address-twice", text, ["sites.b.address: duplicate address 198.51.100.11, also of a"]
    for how, value in (
        ("kind", "zfs:tank"),
        ("no-colon", "lvm"),
        ("no-path", "lvm:"),
        ("blank-path", "directory: "),
        ("number", 3),
        ("vg-slash", "lvm:a/b"),
        ("vg-dots", "lvm:.."),
        ("vg-dash", "lvm:-towline"),
        ("vg-space", "lvm:to line"),
        ("too-long", "directory:" + "d" * 90),
        ("nul", "directory:a\0b"),
        ("newline", "directory:a\nb"),
    ):
        yield f"devices-{how}", changed({"sites/a/devices": value}), ["sites.a.devices: "]
    for how, value in (("same", "directory:state/c"), ("spelled", "directory:state/x/../c/")):
        text = changed({"sites/a/devices": value})
        yield f"directory-{how}", text, ["sites.c.devices: the same directory as a"]


def _hosts() -> Iterator[Case]:
    for how, value in (
        ("plain", "app1"),
        ("eui", "eui.0123456789abcdef"),
        ("month", "iqn.2026-13.org.example:app1"),
        ("no-domain", "iqn.2026-11:app1"),
        ("one-label", "iqn.2026-11.org:app1"),
        ("upper", "iqn.2026-11.org.example:App1"),
        ("underscore", "iqn.2026-11.org.example:app_1"),
        ("space", "iqn.2026-11.org.example:app 1"),
        ("empty-name", "iqn.2026-11.org.example:"),
        ("too-long", "iqn.2026-11.org.example:" + "x" * 210),
    ):
        text = changed({"hosts/app1/initiator": value})
        yield f"initiator-{how}", text, ["hosts.app1.initiator: bad IQN"]
    own = "iqn.2026-11.org.example.towline:a.initiator"
    text = changed({"hosts/app1/initiator": own})
    yield "initiator-of-site", text, ["hosts.app1.initiator: duplicate: it is the initiator"]
    twin = {"initiator": "iqn.2026-11.org.example:app1", "groups": ["orders"]}
    text = changed({"hosts/app2": twin})
    yield "initiator-twice", text, ["hosts.app2.initiator: duplicate initiator"]
    yield "host-named-as-site", renamed("hosts", "app1", "a"), ["hosts.a: duplicate name"]
    for how, value, words in (
        ("unknown", ["bills"], "unknown group 'bills', expected one of: orders"),
        ("none", [], "expected at least one group"),
        ("twice", ["orders", "orders"], "duplicate group"),
    ):
        text = changed({"hosts/app1/groups": value})
        yield f"host-group-{how}", text, [f"hosts.app1.groups: {words}"]


def _prefixes() -> Iterator[Case]:
    for how, value in (
        ("colon", "iqn.2026-11.org.example:towline"),
        ("word", "towline"),
        ("upper", "iqn.2026-11.ORG.example"),
        ("year", "iqn.26-11.org.example"),
        ("long", "iqn.2026-11.org." + "x" * 160),
        ("empty", ""),
    ):
        text = changed({"naming/iqn_prefix": value})
        yield f"prefix-{how}", text, ["naming.iqn_prefix: bad IQN prefix"]


def _collisions() -> Iterator[Case]:
    sites = {"a": {"primary": True}}
    journal = {"size": "1GiB"}
    for how, group, volume, first in (
        ("volumes", "orders-db", "x", "db-x"),
        ("journal", "orders-db", "x", "db-journal"),
    ):
        other = {"volumes": {volume: "1MiB"}, "journal": journal, "sites": sites}
        text = changed({f"{ORDERS}/volumes/{first}": "1MiB", f"groups/{group}": other})
        words = f"device collides with groups.orders.volumes.{first}: both are /dev/towline/orders-"
        yield f"collision-{how}", text, [words]


def _texts() -> Iterator[Case]:
    twice = GOOD + "sites: {}\n"
    yield "text-duplicate-top", twice, ["sites: duplicate key on line 16, first given on line 10"]
    for how, old, new, words in (
        ("volume", "wal: 512MiB", "db: 512MiB", "groups.orders.volumes.db: duplicate key"),
        ("site", "      b: {", "      c: {", "groups.orders.sites.c: duplicate key on line 9"),
        ("leaf", "primary: true", "primary: true, primary: true", "sites.a.primary: duplicate"),
        ("tab", "  orders:", "\torders:", "line 3: not valid YAML"),
        ("bracket", "[orders]", "[orders", "not valid YAML"),
        ("alias", "a: {primary: true}", "a: &x {primary: true}\n      d: *x", "line 8: aliases"),
        ("tag", "hold", "!!python/name:os.system", "line 5: not valid YAML"),
        ("date", "hold", "2026-13-45", "not valid YAML"),
        ("control", "hold", "\x07", "not valid YAML"),
        ("second-document", "hosts:", "---\nhosts:", "not valid YAML"),
        ("list-key", "  app1:", "  [app1]:", "not valid YAML"),
        ("digits", "2GiB", "9" * 5000, "not valid YAML"),
    ):
        yield f"text-{how}", GOOD.replace(old, new, 1), [words]
    for how, text, words in (
        ("empty", "", "expected groups and sites, got nothing"),
        ("comment", "# later\n", "expected groups and sites, got nothing"),
        ("null", "~", "expected groups and sites, got nothing"),
        ("scalar", "towline", "file: expected a mapping, got 'towline'"),
        ("list", "- a\n- b\n", "file: expected a mapping"),
        ("nul", "groups: \0", "not valid YAML"),
        ("deep", "[" * 20_000, "line 1: nested deeper than 16 levels"),
        ("long", "# " + "x" * (1 << 20), "expected at most 1048576 characters"),
    ):
        yield f"text-{how}", text, [words]


CASES: list[Case] = [
    *_names(),
    *_unknown_keys(),
    *_missing_keys(),
    *_wrong_types(),
    *_empty_sections(),
    *_sizes(),
    *_volume_ids(),
    *_upstreams(),
    *_intervals(),
    *_sync_links(),
    *_interval_contradictions(),
    *_verify(),
    *_later_releases(),
    *_sites(),
    *_hosts(),
    *_prefixes(),
    *_collisions(),
    *_texts(),
]


@pytest.mark.parametrize(("text", "words"), [c[1:] for c in CASES], ids=[c[0] for c in CASES])
def test_topology_bad_file_is_refused_at_its_place(text: str, words: list[str]) -> None:
    with pytest.raises(ConfigError) as refusal:
        parse_topology(text, "bad.yml")
    tally.count("F42")
    message = str(refusal.value)
    assert message.startswith("bad.yml: ")
    assert "\n" not in message
    assert refusal.value.violations
    assert all(": " in violation for violation in refusal.value.violations)
    for expected in words:
        assert expected in message


def test_topology_bad_files_are_at_least_two_hundred() -> None:
    assert len({text for _, text, _ in CASES}) >= 200

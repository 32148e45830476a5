"""LIO's configuration of this node, through rtslib-fb alone: read as a tree, changed by steps.

Only what is ours is read: targets whose names follow ``naming``, the backstores that they use,
and backstores that an interrupted run left behind (told by their config string or serial).
Secrets pass through and are never part of a message.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from replicator.codec import naming
from replicator.codec.target_tree import (
    BlockBackstore,
    Credentials,
    Key,
    Kind,
    MappedLun,
    Tree,
    UserBackstore,
    Value,
    describe,
    in_creation_order,
)
from replicator.errors import DeviceBusy, DeviceUnusable, MissingPackage, TargetFailed
from replicator.seams import uio

TARGET_DATABASE = Path("/etc/target")
"""Where the kernel keeps persistent reservations; REGISTER fails if ``pr`` is not there."""

_NULL = "NULL"
_DEFAULT_GROUP = "default_tg_pt_gp"


def _rtslib() -> Any:
    """Return rtslib, which only nodes with LIO targets have installed."""
    try:
        return importlib.import_module("rtslib_fb")
    except ImportError as error:
        raise MissingPackage(
            "rtslib-fb is not installed in this Python environment; install towline[lio]"
        ) from error


class LioConfiguration:
    """The part of LIO's configuration that belongs to one site (a TargetSeam)."""

    def __init__(self, iqn_prefix: str, site: str) -> None:
        """Open LIO's configfs tree; TargetFailed or MissingPackage if there is none."""
        self._rts = _rtslib()
        self._site = site
        self._ours = re.compile(
            re.escape(iqn_prefix) + r":[a-z0-9-]+\.[a-z0-9-]+\.(journal|data|leg)"
        )
        with _translated("open LIO's configuration"):
            (TARGET_DATABASE / "pr").mkdir(parents=True, exist_ok=True)
            self._root = self._rts.RTSRoot()
            self._fabric = self._rts.FabricModule("iscsi")

    # reading

    def read(self) -> Tree:
        """Return what there is of ours, parents first."""
        tree: Tree = {}
        with _translated("read LIO's configuration"):
            self._root.invalidate_caches()
            targets = [t for t in self._fabric.targets if self._ours.fullmatch(t.wwn)]
            for target in targets:
                for tpg in target.tpgs:
                    self._read_target(tree, target.wwn, tpg)
            used = {value for key, value in tree.items() if key[0] is Kind.LUN}
            tree[Kind.DISCOVERY_CLOSED, "iscsi"] = bool(self._fabric.discovery_enable_auth)
            for storage in self._root.storage_objects:
                if f"{storage.plugin}/{storage.name}" in used or self._is_left_behind(storage):
                    self._read_backstore(tree, storage)
        return in_creation_order(tree)

    def _is_left_behind(self, storage: Any) -> bool:
        if storage.plugin == "user":
            return str(storage.config).startswith(f"{naming.TCMU_HANDLER}/")
        suffix = f"-{naming.JOURNAL_SUFFIX}"
        if storage.plugin != "block" or not storage.name.endswith(suffix):
            return False
        group = storage.name.removesuffix(suffix)
        return bool(storage.wwn == naming.journal_serial(group, self._site))

    def _read_backstore(self, tree: Tree, storage: Any) -> None:
        plugin, name = storage.plugin, storage.name
        if plugin == "user":
            control = dict(pair.split("=") for pair in storage.control_tuples.split(",") if pair)
            tree[Kind.BACKSTORE, plugin, name] = UserBackstore(
                str(storage.config),
                int(storage.size),
                storage.wwn,
                int(storage.hw_max_sectors),
                int(control.get("max_data_area_mb", 0)),
            )
            tree[Kind.ALUA_STATE, plugin, name] = int(self._alua(storage).alua_access_state)
        elif plugin == "block":
            info = Path(storage.path, "info").read_text(encoding="ascii", errors="replace")
            device = held_device(info, storage.udev_path, os.path.realpath(storage.udev_path))
            tree[Kind.BACKSTORE, plugin, name] = BlockBackstore(
                device, storage.wwn, bool(storage.readonly)
            )
        else:
            tree[Kind.BACKSTORE, plugin, name] = "foreign kind"
        for attribute in storage.list_attributes(writable=True, readable=True):
            key = (Kind.BACKSTORE_ATTRIBUTE, plugin, name, attribute)
            tree[key] = storage.get_attribute(attribute)

    def _read_target(self, tree: Tree, iqn: str, tpg: Any) -> None:
        tree[Kind.TARGET, iqn] = True
        tree[Kind.ENABLED, iqn] = bool(tpg.enable)
        for attribute in tpg.list_attributes(writable=True, readable=True):
            tree[Kind.TPG_ATTRIBUTE, iqn, attribute] = tpg.get_attribute(attribute)
        for parameter in tpg.list_parameters(writable=True, readable=True):
            tree[Kind.TPG_PARAMETER, iqn, parameter] = tpg.get_parameter(parameter)
        for lun in tpg.luns:
            storage = lun.storage_object
            tree[Kind.LUN, iqn, str(lun.lun)] = f"{storage.plugin}/{storage.name}"
        for portal in tpg.network_portals:
            tree[Kind.PORTAL, iqn, f"{portal.ip_address}:{portal.port}"] = True
        for acl in tpg.node_acls:
            self._read_acl(tree, iqn, acl)

    def _read_acl(self, tree: Tree, iqn: str, acl: Any) -> None:
        tree[Kind.ACL, iqn, acl.node_wwn] = True
        tree[Kind.CHAP, iqn, acl.node_wwn] = Credentials(
            userid=_set_text(acl.chap_userid),
            mutual_userid=_set_text(acl.chap_mutual_userid),
            password=_set_text(acl.chap_password),
            mutual_password=_set_text(acl.chap_mutual_password),
        )
        for mapped in acl.mapped_luns:
            key = (Kind.MAPPED_LUN, iqn, acl.node_wwn, str(mapped.mapped_lun))
            tree[key] = MappedLun(mapped.tpg_lun.lun, bool(mapped.write_protect))

    # changing

    def create(self, key: Key, value: Value) -> None:
        """Make what ``key`` names; TargetFailed with what LIO said."""
        with _translated(f"create {describe(key)} ({value})"):
            kind, *names = key
            if kind is Kind.BACKSTORE:
                self._create_backstore(names[1], value)
            elif kind is Kind.TARGET:
                self._rts.TPG(self._rts.Target(self._fabric, names[0]), 1)
            elif kind is Kind.LUN:
                plugin, _, name = str(value).partition("/")
                self._rts.LUN(self._tpg(names[0]), int(names[1]), self._storage(plugin, name))
            elif kind is Kind.ACL:
                self._rts.NodeACL(self._tpg(names[0]), names[1], mode="create")
            elif kind is Kind.MAPPED_LUN:
                assert isinstance(value, MappedLun)
                acl = self._acl(names[0], names[1])
                self._rts.MappedLUN(acl, int(names[2]), value.lun, value.write_protect)
            else:
                assert kind is Kind.PORTAL, kind
                address, _, port = names[1].rpartition(":")
                self._rts.NetworkPortal(self._tpg(names[0]), address, int(port), mode="create")

    def _create_backstore(self, name: str, value: Value) -> None:
        if isinstance(value, UserBackstore):
            self._rts.UserBackedStorageObject(
                name,
                config=value.config,
                size=value.size_bytes,
                wwn=value.serial,
                hw_max_sectors=value.hw_max_sectors,
                control=f"nl_reply_supported=-1,max_data_area_mb={value.data_area_mib}",
            )
        else:
            assert isinstance(value, BlockBackstore)
            if not os.path.exists(value.device):
                raise TargetFailed(
                    f"{value.device} does not exist; create the volume first (role 'volumes')"
                )
            self._rts.BlockStorageObject(
                name, dev=value.device, wwn=value.serial, readonly=value.read_only
            )

    def remove(self, key: Key) -> None:
        """Remove what ``key`` names; TargetFailed with what LIO said."""
        with _translated(f"remove {describe(key)}"):
            kind, *names = key
            if kind is Kind.BACKSTORE:
                if names[0] == "user":
                    _give_back_commands(names[1])
                self._storage(names[0], names[1]).delete()
            elif kind is Kind.TARGET:
                self._rts.Target(self._fabric, names[0], mode="lookup").delete()
            elif kind is Kind.LUN:
                self._rts.LUN(self._tpg(names[0]), int(names[1])).delete()
            elif kind is Kind.ACL:
                self._acl(names[0], names[1]).delete()
            elif kind is Kind.MAPPED_LUN:
                self._rts.MappedLUN(self._acl(names[0], names[1]), int(names[2])).delete()
            else:
                assert kind is Kind.PORTAL, kind
                address, _, port = names[1].rpartition(":")
                tpg = self._tpg(names[0])
                self._rts.NetworkPortal(tpg, address, int(port), mode="lookup").delete()

    def set(self, key: Key, value: Value) -> None:
        """Set what ``key`` names; TargetFailed with what LIO said."""
        with _translated(f"set {describe(key)} to {value}"):
            kind, *names = key
            if kind is Kind.BACKSTORE_ATTRIBUTE:
                self._storage(names[0], names[1]).set_attribute(names[2], value)
            elif kind is Kind.ALUA_STATE:
                self._alua(self._storage(names[0], names[1])).alua_access_state = value
            elif kind is Kind.DISCOVERY_CLOSED:
                self._fabric.discovery_enable_auth = bool(value)
            elif kind is Kind.TPG_ATTRIBUTE:
                self._tpg(names[0]).set_attribute(names[1], value)
            elif kind is Kind.TPG_PARAMETER:
                self._tpg(names[0]).set_parameter(names[1], value)
            elif kind is Kind.CHAP:
                self._set_credentials(self._acl(names[0], names[1]), value)
            else:
                assert kind is Kind.ENABLED, kind
                self._set_enabled(names[0], bool(value))

    def _set_credentials(self, acl: Any, value: Value) -> None:
        assert isinstance(value, Credentials)
        acl.chap_userid = value.userid
        acl.chap_password = value.password
        acl.chap_mutual_userid = value.mutual_userid
        acl.chap_mutual_password = value.mutual_password

    def _set_enabled(self, iqn: str, enabled: bool) -> None:
        """Enable or disable; disabling waits for commands, so a dead handler's are given back."""
        tpg = self._tpg(iqn)
        if not enabled:
            for lun in tpg.luns:
                storage = lun.storage_object
                if storage.plugin == "user":
                    _give_back_commands(storage.name)
        tpg.enable = enabled

    # looking up

    def _tpg(self, iqn: str) -> Any:
        return self._rts.TPG(self._rts.Target(self._fabric, iqn, mode="lookup"), 1, mode="lookup")

    def _acl(self, iqn: str, initiator: str) -> Any:
        return self._rts.NodeACL(self._tpg(iqn), initiator, mode="lookup")

    def _storage(self, plugin: str, name: str) -> Any:
        self._root.invalidate_caches()
        kind = {
            "block": self._rts.BlockStorageObject,
            "user": self._rts.UserBackedStorageObject,
        }
        return kind[plugin](name)

    def _alua(self, storage: Any) -> Any:
        return self._rts.ALUATargetPortGroup(storage, _DEFAULT_GROUP)


def held_device(info: str, path: str, resolved: str) -> str:
    """Return the path of the device that a block backstore holds, as its ``info`` has it.

    A journal that was moved has another device under the same path: LIO still holds the old one,
    and what is returned then differs from every path (drivers/target/target_core_iblock.c).
    """
    found = re.search(r"iBlock device: (\S+)", info)
    if found is None or not resolved.startswith("/dev/") or found[1] == os.path.basename(resolved):
        return path
    return f"{found[1]} (no longer {path})"


def _set_text(value: str | None) -> str:
    return "" if value is None or value == _NULL else value


def _give_back_commands(backstore: str) -> None:
    """Give back what a handler that died left unanswered; disabling would wait for it for ever.

    A handler that lives (it holds the UIO device) answers by itself.
    """
    for device in uio.user_backstores():
        if device.backstore_name != backstore:
            continue
        try:
            device.open().close()
        except DeviceBusy:
            return
        device.hold()


@contextlib.contextmanager
def _translated(what: str) -> Iterator[None]:
    """Turn what rtslib and configfs raise into TargetFailed."""
    try:
        yield
    except (OSError, _rtslib().RTSLibError, DeviceUnusable) as error:
        raise TargetFailed(f"cannot {what}: {error}") from error

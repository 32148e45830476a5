"""A LIO configuration in memory that refuses what the real one refuses about order."""

from __future__ import annotations

from replicator.codec.target_tree import SETTABLE, Key, Kind, MappedLun, Tree, Value
from replicator.errors import TargetFailed


class MemoryLio:
    """A TargetSeam; ``fail_at`` makes the n-th change fail, as an interrupted run does."""

    def __init__(self, fail_at: int = 0) -> None:
        self.tree: Tree = {}
        self.changes = 0
        self.fail_at = fail_at

    def read(self) -> Tree:
        return dict(self.tree)

    def create(self, key: Key, value: Value) -> None:
        self._count()
        assert key not in self.tree, key
        assert key[0] not in SETTABLE, key
        for parent in self._parents(key, value):
            if parent not in self.tree:
                raise TargetFailed(f"{key}: {parent} does not exist")
        self.tree[key] = value

    def remove(self, key: Key) -> None:
        self._count()
        value = self.tree.pop(key)
        if key[0] is Kind.TARGET:
            assert self.tree.get((Kind.ENABLED, key[1])) is not True, "removed while enabled"
        for other in [k for k in self.tree if key in self._parents(k, self.tree[k])]:
            if other[0] not in SETTABLE:
                self.tree[key] = value
                raise TargetFailed(f"{key}: {other} uses it")
            del self.tree[other]

    def set(self, key: Key, value: Value) -> None:
        self._count()
        for parent in self._parents(key, value):
            if parent not in self.tree:
                raise TargetFailed(f"{key}: {parent} does not exist")
        self.tree[key] = value

    def _count(self) -> None:
        self.changes += 1
        if self.changes == self.fail_at:
            raise TargetFailed("interrupted")

    @staticmethod
    def _parents(key: Key, value: Value) -> list[Key]:
        kind, *names = key
        if kind in (Kind.BACKSTORE, Kind.TARGET, Kind.DISCOVERY_CLOSED):
            return []
        if kind in (Kind.BACKSTORE_ATTRIBUTE, Kind.ALUA_STATE):
            return [(Kind.BACKSTORE, names[0], names[1])]
        parents: list[Key] = [(Kind.TARGET, names[0])]
        if kind is Kind.LUN:
            plugin, _, name = str(value).partition("/")
            parents.append((Kind.BACKSTORE, plugin, name))
        if kind in (Kind.MAPPED_LUN, Kind.CHAP):
            parents.append((Kind.ACL, names[0], names[1]))
        if kind is Kind.MAPPED_LUN:
            assert isinstance(value, MappedLun)
            parents.append((Kind.LUN, names[0], str(value.lun)))
        return parents

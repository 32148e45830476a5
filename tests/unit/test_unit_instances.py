"""The Ansible module that keeps a template unit's instances, against a systemd of a few lines."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest

MODULE = Path(__file__).resolve().parents[2] / "library/unit_instances.py"


def _load() -> Any:
    specification = importlib.util.spec_from_file_location("unit_instances", MODULE)
    assert specification is not None and specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


class Systemd:
    """What a template's commands see and do, and in which order."""

    def __init__(self, enabled: set[str], states: dict[str, str]) -> None:
        self._enabled, self._states = enabled, states
        self.commands: list[str] = []

    def enabled(self) -> set[str]:
        return set(self._enabled)

    def loaded(self) -> dict[str, str]:
        return dict(self._states)

    def unit(self, instance: str) -> str:
        return instance

    def systemctl(self, *words: str) -> str:
        self.commands.append(" ".join(words))
        return ""


def _converge(systemd: Systemd, check: bool = False, **options: Any) -> dict[str, Any]:
    chosen = {"instances": [], "restarted": [], "reload": False, "ends_only": False} | options
    return dict(_load().converge(systemd, chosen, check))


def test_instances_as_wanted_change_nothing() -> None:
    systemd = Systemd({"orders"}, {"orders": "active"})
    assert not _converge(systemd, instances=["orders"])["changed"]
    assert systemd.commands == []


@pytest.mark.parametrize("state", ["active", "activating", "deactivating"])
def test_instances_that_are_not_listed_end_before_others_start(state: str) -> None:
    systemd = Systemd({"gone"}, {"gone": state})
    result = _converge(systemd, instances=["orders", "vault"], reload=True)
    assert result["ended"] == ["gone"] and result["started"] == ["orders", "vault"]
    assert systemd.commands == [
        "daemon-reload",
        "disable --now gone",
        "enable orders vault",
        "start orders vault",
    ]


def test_instances_that_failed_are_started_and_not_ended_twice() -> None:
    systemd = Systemd({"orders"}, {"orders": "failed", "gone": "failed"})
    assert _converge(systemd, instances=["orders"])["ended"] == []
    assert systemd.commands == ["start orders"]


def test_instances_to_be_restarted_are_only_those_that_run() -> None:
    systemd = Systemd({"a", "b"}, {"a": "active"})
    result = _converge(systemd, instances=["a", "b"], restarted=["a", "b"])
    assert sorted(result["started"]) == ["a", "b"]
    assert systemd.commands == ["restart a", "start b"]


def test_instances_in_check_mode_are_told_and_left() -> None:
    systemd = Systemd(set(), {"gone": "active"})
    result = _converge(systemd, check=True, instances=["orders"])
    assert result["changed"] and systemd.commands == []
    assert result["diff"]["after"] == "end gone\nenable orders\nstart orders\n"


def test_instances_to_be_ended_only_start_nothing() -> None:
    systemd = Systemd({"gone"}, {"gone": "active"})
    result = _converge(systemd, instances=["orders"], ends_only=True)
    assert result["ended"] == ["gone"] and result["started"] == []
    assert systemd.commands == ["disable --now gone"]

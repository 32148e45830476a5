"""The lab as the tests see it: machines over paramiko, cables over QMP, names from the topology."""

from __future__ import annotations

import base64
import io
import json
import shlex
import subprocess
import tarfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import paramiko
from testinfra.backend.base import CommandResult
from testinfra.backend.paramiko import ParamikoBackend
from testinfra.host import Host

from replicator.codec import naming
from replicator.codec.topology import Group, Topology
from replicator.seams.nodefiles import read_topology
from tools.lab import cables, description, power, reach
from tools.lab.places import Places

PROJECT = Path(__file__).resolve().parents[2]
SCRIPTS = Path(__file__).parent / "nodes"
PLACE = "/usr/local/lib/towline-tests"
PYTHON = "/opt/towline/venv/bin/python"
COMMAND_SECONDS = 90
POLL_SECONDS = 0.5
BOOT_SECONDS = 300.0

_T = TypeVar("_T")


class LabMissing(Exception):
    """No lab is up, or not all of it; the text is the one line that says what to do."""


def until(condition: Callable[[], _T], limit_seconds: float, what: str) -> _T:
    """Return what ``condition`` gives as soon as it is true; AssertionError after the limit."""
    begin = time.monotonic()
    while True:
        value = condition()
        if value:
            return value
        waited = time.monotonic() - begin
        assert waited < limit_seconds, f"not after {waited:.0f} s: {what}"
        time.sleep(POLL_SECONDS)


class KnownHost(ParamikoBackend):
    """Testinfra's paramiko backend, with the lab's known_hosts: nothing is trusted on first use."""

    def _load_ssh_config(self, client: paramiko.SSHClient, *words: Any) -> None:
        super()._load_ssh_config(client, *words)
        client.load_host_keys(str(Path(self.ssh_config).with_name("known_hosts")))
        client.set_missing_host_key_policy(paramiko.RejectPolicy())


class Node:
    """One machine, reached with testinfra over paramiko."""

    def __init__(self, name: str, ssh_config: Path) -> None:
        self.name = name
        self._ssh_config = ssh_config
        self.connect()

    def connect(self) -> None:
        """Take a new connection (after a reboot)."""
        backend = KnownHost(self.name, ssh_config=str(self._ssh_config), timeout=60)
        self.host = Host(backend)
        backend.set_host(self.host)

    def run(self, command: str, limit_seconds: int = COMMAND_SECONDS) -> CommandResult:
        """Run a shell command; one that hangs ends with 124."""
        return self.host.run(f"timeout {limit_seconds} sh -c {shlex.quote(command)}")

    def ok(self, command: str, limit_seconds: int = COMMAND_SECONDS) -> str:
        """Run a shell command that must succeed; return what it prints."""
        result = self.run(command, limit_seconds)
        assert result.rc == 0, (
            f"{self.name}: {command!r} ended with {result.rc}: {result.stderr or result.stdout}"
        )
        return str(result.stdout)

    def script(self, name: str, *words: object, python: str = "python3", limit: int = 120) -> Any:
        """Run one of our scripts there; return the JSON that it prints."""
        line = " ".join(shlex.quote(str(word)) for word in words)
        return json.loads(self.ok(f"{python} {PLACE}/{name}.py {line}", limit))

    def bring_scripts(self) -> None:
        """Put our scripts there."""
        packed = io.BytesIO()
        with tarfile.open(fileobj=packed, mode="w:gz") as archive:
            for path in sorted(SCRIPTS.glob("*.py")):
                archive.add(path, path.name)
        text = base64.b64encode(packed.getvalue()).decode()
        self.ok(f"mkdir -p {PLACE} && echo {text} | base64 -d | tar -xz --no-same-owner -C {PLACE}")

    def kernel_errors(self) -> int:
        """Return how many I/O errors the kernel has told of since it booted."""
        return int(self.run("dmesg | grep -ciE 'I/O error|Buffer I/O'").stdout or 0)

    def boot_id(self) -> str:
        """Return the kernel's boot id, or nothing while the machine cannot be reached."""
        command = ["ssh", "-F", str(self._ssh_config), "-o", "ConnectTimeout=10", self.name]
        outcome = subprocess.run(
            [*command, "cat /proc/sys/kernel/random/boot_id"], capture_output=True, text=True
        )
        return outcome.stdout.strip()


@dataclass
class Load:
    """fio on a host in the background, each block verified at its end."""

    node: Node
    unit: str

    def is_running(self) -> bool:
        """Whether fio still runs."""
        state = self.node.run(f"systemctl is-active {self.unit}").stdout.strip()
        return state in ("active", "activating")

    def finish(self, limit_seconds: float) -> dict[str, Any]:
        """Wait for the end; return fio's job report. Asserts that the host saw no error."""
        until(lambda: not self.is_running(), limit_seconds, f"the end of {self.unit}")
        text = self.node.ok(f"cat /run/{self.unit}.json")
        job: dict[str, Any] = json.loads(text[text.index("{") :])["jobs"][0]
        assert job["error"] == 0, f"fio: error {job['error']} after {job['write']['total_ios']}"
        return job


def longest_write_seconds(job: dict[str, Any]) -> float:
    """Return the longest that one write took, from submission to answer."""
    return float(job["write"]["lat_ns"]["max"]) / 1e9


@dataclass
class Lab:
    """Everything that a test may use."""

    places: Places
    machines: description.Lab
    topology: Topology
    nodes: dict[str, Node] = field(default_factory=dict)

    @classmethod
    def open(cls) -> Lab:
        """Connect to every machine; LabMissing if the lab is not up and provisioned."""
        places = Places(PROJECT)
        machines = description.load(PROJECT)
        remedy = "run: make lab (or set TOWLINE_LAB to the state of one that is up)"
        down = [m.name for m in machines.machines if power.running_pid(places, m.name) is None]
        if down or not places.ssh_config.exists():
            raise LabMissing(f"no lab is up at {places.state}: not running: {down}; {remedy}")
        lab = cls(places, machines, read_topology(places.topology_file))
        for machine in machines.machines:
            lab.nodes[machine.name] = Node(machine.name, places.ssh_config)
        for site in lab.sites:
            if site.run("test -S /run/towline/" + lab.group.name + ".sock").rc:
                raise LabMissing(
                    f"no replicatord of group {lab.group.name} answers at {site.name}; {remedy}; "
                    "another topology than the one that is provisioned: set TOWLINE_LAB_TOPOLOGY"
                )
        return lab

    @staticmethod
    def scenario_mark() -> Path:
        """The file that a scenario leaves until its tests have passed (molecule/cascade)."""
        return Places(PROJECT).state / "unproved"

    @property
    def group(self) -> Group:
        """The lab's group."""
        return self.topology.groups[0]

    @property
    def sites(self) -> list[Node]:
        """The sites, the primary first."""
        return [self.nodes[site.name] for site in self.group.sites]

    def has_data(self, site: str) -> bool:
        """Whether a site keeps volumes, or only a journal."""
        return self.group.site(site).data

    @property
    def app(self) -> Node:
        """The host."""
        return self.nodes[self.topology.hosts[0].name]

    def __getitem__(self, name: str) -> Node:
        return self.nodes[name]

    # names

    @property
    def unit(self) -> str:
        """The replicator's unit."""
        return f"replicatord@{self.group.name}.service"

    def data_target(self) -> str:
        """The target that the host uses."""
        return naming.data_target_iqn(
            self.topology.iqn_prefix, self.group.name, self.group.primary.name
        )

    def address(self, site: str) -> str:
        """A site's address on the cables."""
        return self.topology.site(site).address

    def volume(self, site: str, name: str) -> str:
        """A volume's device at a site."""
        return naming.volume_path(self.topology.site(site), self.group.name, name)

    def journal(self, site: str) -> str:
        """A site's journal device, at that site."""
        return naming.journal_path(self.topology.site(site), self.group.name)

    def host_disk(self, volume: str) -> str:
        """A volume's iSCSI disk at the host."""
        site = self.topology.site(self.group.primary.name)
        lun = naming.data_lun(self.group, volume)
        portal = naming.portal(site)
        return f"/dev/disk/by-path/ip-{portal}-iscsi-{self.data_target()}-lun-{lun}"

    def sg_device(self, node: Node, disk: str) -> str:
        """The pass-through device of a SCSI disk."""
        node.ok("modprobe sg")
        name = node.ok(f"basename $(readlink -f {disk})").strip()
        return "/dev/" + node.ok(f"ls /sys/class/block/{name}/device/scsi_generic").strip()

    # state

    def seen_from(self, site: str) -> dict[str, dict[str, Any]]:
        """Return each site's row as ``site`` sees it; nothing while its daemon does not answer."""
        result = self[site].run(f"python3 {PLACE}/ask.py {self.group.name} status")
        answer = json.loads(result.stdout) if result.rc == 0 and result.stdout else {}
        rows = answer.get("result", {}).get("sites", [])
        return {row["site"]: row for row in rows}

    def page(self, site: str) -> dict[str, Any]:
        """Return what the journal's page at ``site`` states (works without a daemon)."""
        facts: dict[str, Any] = json.loads(self[site].ok("replicatorctl journal info --json"))
        return facts

    def head(self, site: str) -> int:
        """Return the position that a site has durably received, as it says itself; -1 if silent."""
        row = self.seen_from(site).get(site) or {}
        return int((row.get("received") or {}).get("position", -1))

    def converged(self) -> bool:
        """Whether every site holds and has restored what the primary has, by each one's word."""
        pairs = set()
        for site in self.sites:
            own = self.seen_from(site.name).get(site.name)
            if own is None:
                return False
            for which in ("received", "restored") if self.has_data(site.name) else ("received",):
                pair = own[which] or {}
                pairs.add((pair.get("position"), pair.get("digest")))
        return len(pairs) == 1

    def converge(self, limit_seconds: float = 120.0) -> None:
        """Wait until all sites hold the same."""
        until(self.converged, limit_seconds, "all sites at the primary's position")

    def digests(
        self, offset: int = 0, length: int = 0, volumes: list[str] | None = None
    ) -> list[Any]:
        """Return the digests of the volumes at each site that has them, in the topology's order."""
        names = volumes or [volume.name for volume in self.group.volumes]
        found = []
        for site in filter(lambda site: self.has_data(site.name), self.sites):
            paths = [self.volume(site.name, name) for name in names]
            answer = site.script("digest", offset, length, *paths, python=PYTHON, limit=300)
            found.append(dict(zip(names, answer.values(), strict=True)))
        return found

    def assert_same_everywhere(self, volumes: list[str] | None = None) -> None:
        """Converge, then compare the bytes."""
        self.converge()
        digests = self.digests(volumes=volumes)
        assert digests[1:] == digests[:-1], f"volumes differ: {digests}"

    def device_offset(self, site: str, position: int) -> int:
        """Return where a position of the log lies on a site's journal device, in bytes."""
        page = self.page(site)
        return int(page["ring_offset"]) + position % int(page["ring_size"])

    def reason(self, site: str) -> str:
        """Return why a site does not get on, by its own word; empty when all is well."""
        return str((self.seen_from(site).get(site) or {}).get("reason", ""))

    # acts

    @contextmanager
    def rotten(self, site: str, position: int) -> Iterator[None]:
        """Flip one bit of a site's journal at a position; flip it back at the end."""
        words = f"{self.journal(site)} {self.device_offset(site, position)}"
        self[site].ok(f"python3 {PLACE}/flip.py {words}")
        try:
            yield
        finally:
            self[site].ok(f"python3 {PLACE}/flip.py {words}")

    def restart(self, site: str) -> None:
        """Start a site's replicator anew, also after a failure that systemd does not repeat."""
        self[site].run(f"systemctl reset-failed {self.unit}")
        self[site].ok(f"systemctl restart {self.unit}", 240)

    @contextmanager
    def cut(self, cable: str) -> Iterator[None]:
        """Take a cable's carrier at both ends; give it back at the end."""
        cables.set_cable(self.machines, self.places, cable, False)
        try:
            yield
        finally:
            cables.set_cable(self.machines, self.places, cable, True)

    @contextmanager
    def stays_dead(self, site: str, begins_again: bool = True) -> Iterator[None]:
        """Keep systemd from starting a site's replicator again; it runs at the end, or not yet."""
        node, folder = self[site], f"/run/systemd/system/{self.unit}.d"
        node.ok(f"mkdir -p {folder} && printf '[Service]\\nRestart=no\\n' >{folder}/test.conf")
        node.ok("systemctl daemon-reload")
        try:
            yield
        finally:
            node.ok(f"rm -r {folder} && systemctl daemon-reload")
            node.run(f"systemctl reset-failed {self.unit}")
            if begins_again:
                node.ok(f"systemctl start {self.unit}", 240)

    def begin_anew(self) -> None:
        """Empty journals and volumes at every site, as on the first day; all run at the end."""
        group = self.group.name
        for site in self.sites:
            site.run(f"systemctl stop {self.unit}")
        for site in self.sites:
            blank = [self.journal(site.name)]
            if self.has_data(site.name):
                blank += [self.volume(site.name, volume.name) for volume in self.group.volumes]
            for path in blank:
                site.ok(f"blkdiscard -f {path}")
            site.ok(f"replicatorctl journal format --group {group} && replicatorctl target apply")
        for site in reversed(self.sites):
            site.run(f"systemctl reset-failed {self.unit}")
            site.ok(f"systemctl start {self.unit}", 240)
        self.converge(600)

    def start_load(
        self, name: str, seconds: int, depth: int = 16, rate: int = 200, volume: str = "scratch"
    ) -> Load:
        """Start fio at the host: random 4 KiB writes at a rate, read back and verified."""
        unit = f"towline-test-{name}"
        size = seconds * rate * 4096
        # fio takes a colon for the end of a file's name, so it gets the kernel's name of the disk.
        disk = self.app.ok(f"readlink -e {self.host_disk(volume)}").strip()
        words = (
            f"fio --name={name} --filename={disk} --direct=1 --ioengine=libaio"
            f" --rw=randwrite --bs=4k --iodepth={depth} --size={size} --rate_iops=,{rate}"
            " --verify=crc32c --verify_fatal=1 --verify_state_save=0 --randrepeat=0"
            f" --output-format=json --output=/run/{unit}.json"
        )
        self.app.ok(f"rm -f /run/{unit}.json; systemd-run --quiet --collect --unit={unit} {words}")
        return Load(self.app, unit)

    def reboot(self, site: str) -> float:
        """Reboot a machine in good order; return the seconds until a login works again."""
        node = self[site]
        before = node.boot_id()
        begin = time.monotonic()
        node.run("systemctl reboot")
        until(lambda: node.boot_id() not in ("", before), BOOT_SECONDS, f"{site} is up again")
        reach.wait_for_ssh(self.places, self.machines.machine(site), BOOT_SECONDS)
        node.connect()
        return time.monotonic() - begin


@dataclass
class Stamps:
    """A run of stamped writes by the host, and what every image must hold of it."""

    lab: Lab
    run: str
    volume: str
    blocks: int = 2048
    answered: int = 0
    unanswered: int = 0
    """So many more may be in an image: sent by a writer that was killed before the answer."""

    def write(self, count: int) -> None:
        """Write some more; returns when all are answered."""
        disk = self.lab.host_disk(self.volume)
        words = ("write", disk, self.run, self.answered, count, self.blocks)
        self.answered = int(self.lab.app.script("stamp", *words)["answered"])

    @contextmanager
    def trickle(self) -> Iterator[Callable[[], int]]:
        """Write one after the other in the background; gives how many are answered by now.

        At the end the writer is killed. One that waits for an answer ends when that comes.
        """
        unit, progress = f"towline-test-{self.run}", f"/run/towline-test-{self.run}"
        disk, app = self.lab.host_disk(self.volume), self.lab.app
        words = f"trickle {disk} {self.run} {self.blocks} {progress}"
        app.ok(f"systemd-run --quiet --collect --unit={unit} python3 {PLACE}/stamp.py {words}")

        def answered() -> int:
            return int(app.run(f"cat {progress}").stdout.strip() or 0)

        try:
            until(answered, 60, "the first write is answered")
            yield answered
        finally:
            app.run(f"systemctl kill --signal=KILL {unit}")
            self.answered, self.unanswered = answered(), 1

    def held_by(self, site: str) -> int:
        """Return how many writes the image of a site holds; AssertionError if it is no prefix."""
        path = self.lab.volume(site, self.volume)
        words = ("judge", path, self.run, self.answered + self.unanswered, self.blocks)
        verdict = self.lab[site].script("stamp", *words)
        assert verdict["prefix"] is not None, f"{site}: no prefix: {verdict['reason']}"
        return int(verdict["prefix"])

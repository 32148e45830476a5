"""``make lab``: bring the lab up, provision it, write through it, kill, catch up, verify, show.

Each step prints its name and, when it is done, its seconds. A step that fails ends the tour with
one line; run again, it goes on from what is there.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from . import image
from .errors import LabError
from .places import Places

GROUP = "orders"
PRIMARY, LAST = "a", "c"
HOST = "app1"
WRITE_SECONDS = 35.0
KILL_AFTER_SECONDS = 8.0
CATCH_UP_SECONDS = 300.0
POLL_SECONDS = 2.0
GUEST_PROGRAMS = Path(__file__).parent / "guest"
REMOTE = "/var/tmp"


def run_tour(project: Path) -> None:
    """Run all steps and leave ``report.json`` in the lab's state."""
    tour = Tour(Places(project), project)
    began = time.monotonic()
    with tour.step("image (built once, then from the cache)"):
        tour.places.make()
        image.cached(tour.places.cache) or image.build(tour.places.cache)
    with tour.step("machines boot"):
        tour.playbook("playbooks/lab.yml")
    with tour.step("provisioning"):
        tour.playbook("playbooks/site.yml")
    with tour.step("host mounts the volumes of site a"):
        tour.prepare_host()
    with tour.step(f"host writes for {WRITE_SECONDS:.0f} s, a's replicatord is killed in between"):
        run, answered = tour.write_and_kill()
    print(f"    answered: {answered}", flush=True)
    with tour.step("host rests, c catches up"):
        tour.remote(HOST, f"python3 {REMOTE}/workload.py rest")
        head = tour.wait_for_last_site()
    print(f"    all sites at position {head}", flush=True)
    with tour.step("volumes of c against what the host wrote"):
        verdict = tour.verify(run)
    print(f"    {verdict['files']} files and {verdict['rows']} rows as written, e2fsck clean")
    with tour.step("volumes of a, b and c against each other"):
        tour.compare_sites()
    seconds = round(time.monotonic() - began, 1)
    report = {"seconds": seconds, "steps": tour.seconds, "answered": answered, "verified": verdict}
    (tour.places.state / "report.json").write_text(json.dumps(report, indent=2) + "\n")
    print(f"{seconds:7.1f} s  all\n")
    print(tour.remote(LAST, "replicatorctl status"))


class Tour:
    """The lab as the steps see it: playbooks, remote commands, the status of a site."""

    def __init__(self, places: Places, project: Path) -> None:
        self.places = places
        self.project = project
        self.seconds: dict[str, float] = {}

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Print a step and how long it took."""
        print(f"      ...  {name}", flush=True)
        began = time.monotonic()
        yield
        self.seconds[name] = round(time.monotonic() - began, 1)
        print(f"{self.seconds[name]:7.1f} s  {name}", flush=True)

    def playbook(self, path: str) -> None:
        """Run a playbook; its output goes to a log, its last complaint into the error."""
        log = self.places.state / (Path(path).stem + ".log")
        log.parent.mkdir(parents=True, exist_ok=True)
        environment = os.environ | {"ANSIBLE_CONFIG": str(self.project / "ansible.cfg")}
        command = [str(Path(sys.executable).with_name("ansible-playbook")), path]
        with log.open("w") as file:
            code = subprocess.run(
                command,
                cwd=self.project,
                env=environment | {"ANSIBLE_NOCOLOR": "1"},
                stdout=file,
                stderr=subprocess.STDOUT,
            ).returncode
        if code != 0:
            lines = [line.strip() for line in log.read_text().splitlines()]
            reasons = [line for line in lines if line.startswith(("[ERROR]:", "msg:"))]
            raise LabError(f"{path} failed: {(reasons or ['no reason'])[0]}", f"see {log}")

    def remote(self, machine: str, command: str, stdin: str = "") -> str:
        """Run a command on a machine and return its output; LabError with its last line."""
        ssh = ["ssh", "-F", str(self.places.ssh_config), machine, command]
        outcome = subprocess.run(ssh, input=stdin, capture_output=True, text=True)
        if outcome.returncode != 0:
            lines = (outcome.stderr.strip() or outcome.stdout.strip() or "no output").splitlines()
            raise LabError(f"{machine}: {command}: {lines[-1]}")
        return outcome.stdout

    def copy_program(self, machine: str, name: str) -> None:
        """Put one of our guest programs on a machine."""
        text = (GUEST_PROGRAMS / name).read_text()
        self.remote(machine, f"cat >{REMOTE}/{name}", stdin=text)

    def host_devices(self) -> dict[str, str]:
        """Return the host's device of each volume, from the names of its session."""
        from replicator.codec import naming
        from replicator.seams.nodefiles import read_topology

        topology = read_topology(self.places.topology_file)
        group = topology.group(GROUP)
        target = naming.data_target_iqn(topology.iqn_prefix, GROUP, PRIMARY)
        portal = naming.portal(topology.site(PRIMARY))
        by_path = f"/dev/disk/by-path/ip-{portal}-iscsi-{target}-lun-"
        return {v.name: f"{by_path}{naming.data_lun(group, v.name)}" for v in group.volumes}

    def prepare_host(self) -> None:
        """Make file systems where there are none, and mount them."""
        devices = self.host_devices()
        self.copy_program(HOST, "workload.py")
        command = f"python3 {REMOTE}/workload.py prepare {devices['db']} {devices['wal']}"
        self.remote(HOST, command)

    def write_and_kill(self) -> tuple[str, dict[str, Any]]:
        """Write on the host, and kill -9 the primary's replicator once in the middle."""
        run = f"run-{int(time.time())}"
        command = f"python3 {REMOTE}/workload.py write {run} {WRITE_SECONDS}"
        ssh = ["ssh", "-F", str(self.places.ssh_config), HOST, command]
        writer = subprocess.Popen(ssh, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        time.sleep(KILL_AFTER_SECONDS)
        self.remote(PRIMARY, f"systemctl kill --signal=KILL replicatord@{GROUP}.service")
        output, complaint = writer.communicate()
        if writer.returncode != 0:
            last = (complaint.strip() or "no reason").splitlines()[-1]
            raise LabError(f"the workload on {HOST} failed: {last}")
        return run, json.loads(output)

    def status(self, site: str) -> dict[str, Any]:
        """Return ``replicatorctl status --json`` of a site."""
        return dict(json.loads(self.remote(site, f"replicatorctl status --json --group {GROUP}")))

    def wait_for_last_site(self) -> int:
        """Wait until every site has restored what the primary holds; return that position."""
        deadline = time.monotonic() + CATCH_UP_SECONDS
        head = _own(self.status(PRIMARY))["received"]["position"]
        behind: dict[str, int] = {}
        while time.monotonic() < deadline:
            sites = ("a", "b", "c")
            reached = {site: _position(_own(self.status(site)), "restored") for site in sites}
            behind = {site: position for site, position in reached.items() if position < head}
            if not behind:
                return int(head)
            time.sleep(POLL_SECONDS)
        raise LabError(f"after {CATCH_UP_SECONDS:.0f} s not all have restored {head}: {behind}")

    def verify(self, run: str) -> dict[str, Any]:
        """Compare c's volumes with the witness that the host kept."""
        witness = self.remote(HOST, f"cat /var/tmp/towline-witness/{run}.json")
        self.copy_program(LAST, "verify.py")
        self.remote(LAST, f"cat >{REMOTE}/witness.json", stdin=witness)
        volumes = f"/dev/towline/{GROUP}-db /dev/towline/{GROUP}-wal"
        command = f"python3 {REMOTE}/verify.py {REMOTE}/witness.json {volumes} || true"
        verdict = dict(json.loads(self.remote(LAST, command)))
        if verdict["problems"]:
            raise LabError(f"volumes of {LAST} are not what the host wrote: {verdict['problems']}")
        return verdict

    def compare_sites(self) -> None:
        """Compare digests of whole volumes."""
        program = (
            "import sys, xxhash\n"
            "for path in sys.argv[1:]:\n"
            "    state = xxhash.xxh3_128()\n"
            "    with open(path, 'rb') as file:\n"
            "        while block := file.read(1 << 20):\n"
            "            state.update(block)\n"
            "    print(path, state.hexdigest())\n"
        )
        paths = " ".join(f"/dev/towline/{GROUP}-{name}" for name in self.host_devices())
        command = f"/opt/towline/venv/bin/python - {paths}"
        found = {site: self.remote(site, command, stdin=program) for site in ("a", "b", "c")}
        if len(set(found.values())) != 1:
            raise LabError(f"volumes differ between sites: {found}")


def _own(status: dict[str, Any]) -> dict[str, Any]:
    return next(site for site in status["sites"] if site["site"] == status["site"])


def _position(site: dict[str, Any], name: str) -> int:
    return int((site.get(name) or {"position": -1})["position"])

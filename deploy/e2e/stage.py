"""Starts the cluster once, plays the chapters on it, and reports the results."""

import json
import os
import pathlib
import shutil
import time
import traceback

import images
import network
from cluster import Cluster
from control import Control
from faults import Faults
from load import table
from monitoring import Monitoring
from names import Names
from terminal import Terminal
from tutorial import Tutorial
from variants import Variants

HERE = pathlib.Path(__file__).resolve().parent
CHART = HERE.parent / "chart"
NODES = 3
# Runs of the tutorial: the version of helm, and whether the default profile of the nodes denies io_uring.
PLAYS = (("3.17", True), ("4.3", False))


class Stage:
    def __init__(self, args, folder: pathlib.Path):
        self.args, self.folder = args, folder
        self.begun = time.monotonic()
        # Kept after the play, to investigate failures.
        self.logs = args.tools / "logs"
        shutil.rmtree(self.logs, ignore_errors=True)
        self.logs.mkdir(parents=True)
        self.transcript = (self.logs / "transcript.txt").open("w")
        self.socket = folder / "control.sock"

    def out(self, line: str) -> None:
        print(line, flush=True)
        self.transcript.write(line + "\n")

    def title(self, text: str) -> None:
        self.out(f"==== [{time.monotonic() - self.begun:.0f} s] {text}")

    def play(self) -> int:
        self.title(f"{NODES} nodes, each with its own containerd")
        (self.folder / "images").mkdir()
        tars = images.make(self.folder / "images", self.args.tools, self.args.binary)
        cluster = Cluster(self.folder, self.logs, NODES)
        names = Names(cluster)
        try:
            cluster.start(tars)
            cluster.changed()
            control = Control(cluster, self.socket, self.args.helm / f"helm-{PLAYS[0][0]}")
            return self.chapters(cluster, control)
        finally:
            names.stop()
            for node in cluster.nodes:
                node.containerd.stop()

    def chapters(self, cluster: Cluster, control: Control) -> int:
        environment = {
            **os.environ,
            "CORECACHED_E2E_SOCKET": str(self.socket),
            "PATH": f"{HERE / 'bin'}:{os.environ['PATH']}",
            "TERM": "dumb",
        }
        terminal = Terminal(environment, str(CHART.parent), self.out)
        self.faults = Faults(self, cluster, control, terminal)
        passed = failed = 0
        if self.args.shell:
            os.spawnvpe(os.P_WAIT, "bash", ["bash", "-i"], environment)
            return 0
        for name, play in self.listed(cluster, control, terminal):
            if self.args.match not in name:
                continue
            self.title(name)
            begun = len(cluster.notes)
            try:
                play()
                passed += 1
            except Exception as error:  # The next chapters still run.
                failed += 1
                self.out(f"FAILED: {name}: {error}")
                self.transcript.write(traceback.format_exc())
                self.report_pods(cluster)
                self.reset(cluster, control)
            for note in cluster.notes[begun:]:
                self.out(f"  note: {note}")
        if self.faults.rows:
            self.title("results of the load generator")
            self.out(table(self.faults.rows))
        self.title("end")
        self.out(f"{passed} passed, {failed} failed")
        return 1 if failed else 0

    def listed(self, cluster: Cluster, control: Control, terminal: Terminal):
        """The chapters by name. Each is prepared just before it is played."""
        if "tutorial" in self.args.only:
            for helm, denied in PLAYS:
                control.helm = self.args.helm / f"helm-{helm}"
                for node in cluster.nodes:
                    node.denies_io_uring = denied
                said = "denied" if denied else "allowed"
                yield f"the tutorial, helm {helm}, io_uring {said}", Tutorial(terminal, cluster, control, "chart", denied).play
                self.reset(cluster, control)
        if "variants" in self.args.only:
            yield from Variants(self, cluster, control, terminal).cases()
            self.reset(cluster, control)
        if "monitoring" in self.args.only:
            yield "monitoring", Monitoring(self, cluster, control, terminal).play
            self.reset(cluster, control)
        if "faults" in self.args.only:
            yield from self.faults.cases()
            self.reset(cluster, control)

    def report_pods(self, cluster: Cluster) -> None:
        """Prints the state of all pods after a failure."""
        for pod in list(cluster.pods.values()):
            for one in pod.containers:
                state = "ready" if one.is_ready else "running" if one.is_running else f"ended {one.exit_code} {one.reason}"
                probes = {name: (probe.passed, probe.failed) for name, probe in one.probes.items()}
                self.out(f"  {pod.name}/{one.spec['name']}: {state}, {one.restarts} restarts, probes {probes} {pod.error}")

    @staticmethod
    def process_of(pod) -> int:
        """The process id of the first container of a pod."""
        status = pod.node.runtime.call("ContainerStatus", container_id=pod.containers[0].id, verbose=True)
        return json.loads(status.info["info"])["pid"]

    @staticmethod
    def reset(cluster: Cluster, control: Control) -> None:
        """Empties the cluster and reconnects all nodes."""
        with cluster.lock:
            cluster.objects.clear()
            cluster.releases.clear()
            for pod in cluster.pods.values():
                pod.end(0)
        for node in cluster.nodes:
            network.mend(node.number)
        control.wait(lambda: not cluster.pods)

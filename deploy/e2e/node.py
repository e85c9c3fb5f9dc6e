"""A node: its containerd, its seccomp profiles, and its heartbeat."""

import json
import pathlib
import socket
import threading
import time

import network
import sandbox
from containerd import NAMESPACE, Containerd

HEARTBEAT_PORT = 10250
HEARTBEAT_S = 0.5


class Node:
    """Runs pods. `denies_io_uring` selects the default seccomp profile: that of containerd 2 denies
    io_uring, those of 1.6 and 1.7 allow it."""

    def __init__(self, number: int, folder: pathlib.Path, logs: pathlib.Path, cluster):
        self.number, self.cluster, self.logs = number, cluster, logs
        self.name = f"gke-demo-cluster-default-pool-{number}"
        self.address = network.node_address(number)
        self.denies_io_uring = True
        # The folder in which a kubelet looks for seccomp profiles.
        self.host = folder / "host"
        self.profiles = self.host / "var/lib/kubelet/seccomp"
        self.profiles.mkdir(parents=True)
        self.volumes = folder / "volumes"
        self.new_default = folder / "default-of-2.json"
        network.hook(number)
        self.containerd = Containerd(number, folder, logs)
        threading.Thread(target=self._beat, daemon=True).start()

    @property
    def runtime(self):
        return self.containerd.runtime

    def learn_default(self, sandbox_id: str) -> None:
        """Derives the newer default profile from that of this containerd, which is in the configuration of
        every sandbox."""
        if not self.new_default.exists():
            task = self.containerd.folder / "state/io.containerd.runtime.v2.task" / NAMESPACE / sandbox_id
            config = json.loads((task / "config.json").read_text())
            half = self.new_default.with_suffix(f".{sandbox_id}")
            half.write_text(json.dumps(without_io_uring(config["linux"]["seccomp"])))
            half.rename(self.new_default)

    def _beat(self) -> None:
        """Sends heartbeats over the network of the node, so that they stop when the node is disconnected."""
        sandbox.join_network(network.namespace(self.number))
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            while True:
                try:
                    sender.sendto(str(self.number).encode(), (network.FABRIC, HEARTBEAT_PORT))
                except OSError:
                    pass  # The node is disconnected, and must not send a heartbeat.
                time.sleep(HEARTBEAT_S)


def without_io_uring(profile: dict) -> dict:
    for rule in profile["syscalls"]:
        rule["names"] = [name for name in rule["names"] if not name.startswith("io_uring_")]
    return profile | {"syscalls": [rule for rule in profile["syscalls"] if rule["names"]]}

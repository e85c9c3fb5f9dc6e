"""The containerd of a node, in the network namespace of that node: its configuration, process and images."""

import json
import pathlib
import subprocess
import time

import images
import network
import sandbox
from cri import Runtime

CONFIG = """version = 2
root = "{folder}/root"
state = "{folder}/state"
disabled_plugins = ["io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.zfs", "io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.aufs"]
[grpc]
  address = "{folder}/containerd.sock"
[plugins."io.containerd.internal.v1.opt"]
  path = "{folder}/opt"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{pause}"
  restrict_oom_score_adj = true
  stream_server_address = "127.0.0.1"
  stream_server_port = "0"
[plugins."io.containerd.grpc.v1.cri".cni]
  bin_dir = "{plugins}"
  conf_dir = "{folder}/cni"
[plugins."io.containerd.grpc.v1.cri".containerd]
  snapshotter = "overlayfs"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
  runtime_type = "io.containerd.runc.v2"
"""
# The containerd namespace of everything that the container runtime interface creates.
NAMESPACE = "k8s.io"
START_S = 30


class Containerd:
    def __init__(self, number: int, folder: pathlib.Path, logs: pathlib.Path):
        self.number, self.folder = number, folder
        self.socket = folder / "containerd.sock"
        (folder / "cni").mkdir(parents=True)
        (folder / "cni/10-pods.conflist").write_text(json.dumps(self._networks()))
        config = folder / "config.toml"
        config.write_text(CONFIG.format(folder=folder, pause=images.PAUSE, plugins=sandbox.PLUGINS))
        self._log = (logs / f"containerd-{number}.log").open("w")
        command = ["nsenter", f"--net=/run/netns/{network.namespace(number)}", "containerd", "--config", config]
        self._process = subprocess.Popen(command, stdout=self._log, stderr=self._log, stdin=subprocess.DEVNULL)
        self.runtime = None

    def _networks(self) -> dict:
        """CNI configuration: pods are on a bridge, and ports of the node lead to them."""
        bridge = {
            "type": "bridge", "bridge": "pods0", "isGateway": True, "ipMasq": False, "hairpinMode": True,
            "ipam": {
                "type": "host-local", "dataDir": str(self.folder / "addresses"),
                "ranges": [[{"subnet": network.pods_of(self.number)}]], "routes": [{"dst": "0.0.0.0/0"}],
            },
        }  # fmt: skip
        ports = {"type": "portmap", "capabilities": {"portMappings": True}, "snat": True}
        return {"cniVersion": "0.4.0", "name": "pods", "plugins": [bridge, ports]}

    def wait(self, tars: list[pathlib.Path]) -> None:
        """Waits until containerd serves, and imports the images."""
        end = time.monotonic() + START_S
        while not (self.socket.exists() and subprocess.run(self.ctr("version"), capture_output=True, check=False).returncode == 0):
            if self._process.poll() is not None or time.monotonic() > end:
                raise RuntimeError(f"containerd of node {self.number} did not start: see {self._log.name}")
            time.sleep(0.1)
        for tar in tars:
            network.run(*self.ctr("-n", NAMESPACE, "image", "import", tar))
        self.runtime = Runtime(self.socket)
        while not self.runtime.is_ready():
            if time.monotonic() > end:
                raise RuntimeError(f"containerd of node {self.number} is not ready: see {self._log.name}")
            time.sleep(0.1)

    def ctr(self, *arguments) -> list[str]:
        return ["ctr", "--address", str(self.socket), *map(str, arguments)]

    def stop(self) -> None:
        self._process.terminate()
        self._process.wait()

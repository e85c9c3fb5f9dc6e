"""Variants of the chart that the tutorial does not use. Each is installed, tried, and tested with `helm
test`."""

import socket
import time

from pages import backend_of, scrape
from terminal import Failed, Terminal

CACHE, PROXY = "mycache-memcached", "mycache-mcrouter"


class Variants:
    def __init__(self, stage, cluster, control, terminal: Terminal):
        self.stage, self.cluster, self.control, self.terminal = stage, cluster, control, terminal

    def cases(self):
        yield "the image alone", self.image
        yield "a pool with passwords", self.passwords
        yield "io_uring by a profile that the chart installs", self.installed_profile
        yield "a service instead of ports of the nodes", self.local_service

    def install(self, values: str, *settled: tuple[str, str]) -> None:
        self.stage.reset(self.cluster, self.control)
        self.terminal.run(f"helm install mycache chart {values}")
        for kind, name in settled:
            self.control.wait(lambda kind=kind, name=name: self.control.settled(kind, name))

    def helm_test(self, count: int) -> None:
        """Runs `helm test`, which must have `count` successful containers, one for each tested cache or
        proxy."""
        succeeded = r"NAME: mycache\n( +\S+: 0\n){%d}TEST SUITE: +mycache-memcached-test\nPhase: +Succeeded" % count
        self.terminal.run("helm test mycache", succeeded)

    def image(self) -> None:
        """Runs the image alone: no arguments, a read-only root file system, no capabilities, and its own
        user."""
        self.stage.reset(self.cluster, self.control)
        archive, binary = self.stage.folder / "images/corecached.tar", self.stage.args.binary
        self.terminal.out(f"  image: {archive.stat().st_size / 2**20:.1f} MiB packed, of which the binary is {binary.stat().st_size / 2**20:.1f} MiB unpacked")
        security = {"readOnlyRootFilesystem": True, "allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
        container = {"name": "cache", "image": "corecached:0.1.0", "securityContext": security}
        self.cluster.apply([{"kind": "Pod", "metadata": {"name": "alone"}, "spec": {"containers": [container]}}])
        pod = self.cluster.pods["alone"]
        self.control.wait(lambda: pod.containers[0].began_at or pod.error)
        served = self.first_reply(pod.address)
        self.terminal.out(f"  first reply {1000 * (served - pod.containers[0].began_at):.0f} ms after the runtime was asked to start the container")
        command = "kubectl exec alone -- /usr/local/bin/corecached healthcheck --store"
        self.terminal.run(command, "")
        users = f"/proc/{self.stage.process_of(pod)}/status"
        with open(users) as file:
            status = dict(line.rstrip("\n").split(":\t", 1) for line in file if ":\t" in line)
        if (status["Uid"].split()[0], status["CapEff"].strip("0"), status["NoNewPrivs"]) != ("65532", "", "1"):
            raise Failed(f"user, capabilities, new privileges: {status['Uid']}, {status['CapEff']}, {status['NoNewPrivs']}")

    @staticmethod
    def first_reply(address: str) -> float:
        end = time.monotonic() + 20
        while time.monotonic() < end:
            try:
                with socket.create_connection((address, 11211), timeout=1) as client:
                    client.sendall(b"mn\r\n")
                    if client.recv(16) == b"MN\r\n":
                        return time.monotonic()
            except OSError:
                time.sleep(0.001)
        raise Failed("no reply within 20 s")

    def passwords(self) -> None:
        values = "--set architecture=high-availability --set auth.enabled=true,auth.username=web,auth.password=se:cret"
        # Wait until it is ready: then its probes have authenticated.
        self.install(values, ("StatefulSet", CACHE))
        pod = self.cluster.find(app=CACHE)[0]
        with socket.create_connection((pod.address, 11211), timeout=5) as client, client.makefile("rwb") as stream:
            said = []
            for line in (b"get a\r\n", b"set a 0 0 9\r\nweb wrong\r\n", b"set a 0 0 11\r\nweb se:cret\r\n", b"get a\r\n"):
                stream.write(line)
                stream.flush()
                said.append(stream.readline().decode().strip())
        self.terminal.out(f"  without a password, with a wrong one, and with the right one: {said}")
        if said != ["CLIENT_ERROR unauthenticated", "CLIENT_ERROR authentication failure", "STORED", "END"]:
            raise Failed(f"passwords: {said}")
        self.helm_test(3)

    def installed_profile(self) -> None:
        """Installs the seccomp profile on nodes whose default profile denies io_uring."""
        for node in self.cluster.nodes:
            node.denies_io_uring = True
        values = "--set memcached.replicaCount=3 --set seccomp.mode=localhost,seccomp.installer.enabled=true"
        self.install(values, ("DaemonSet", f"{CACHE}-seccomp"), ("StatefulSet", CACHE), ("DaemonSet", PROXY))
        backends = {pod.name: backend_of(pod) for name in (CACHE, PROXY) for pod in self.cluster.find(app=name)}
        self.terminal.out(f"  {backends}")
        if set(backends.values()) != {"io_uring"} or len(backends) != 6:
            raise Failed(f"io_uring is not used everywhere: {backends}")
        self.helm_test(4)

    def local_service(self) -> None:
        values = "--set memcached.replicaCount=3 --set daemonset.hostPort=0,mcrouter.localService.enabled=true"
        self.install(values, ("StatefulSet", CACHE), ("DaemonSet", PROXY))
        self.helm_test(4)
        before = self.stored()
        name = "asks-its-own"
        self.terminal.run(f"kubectl run {name} --image=busybox:1.33 --restart=Never -- true")
        node = self.cluster.pods[name].node
        for number in range(5):
            asks = f"printf \"set k{number} 0 0 1\\r\\nx\\r\\nquit\\r\\n\" | nc {PROXY}-local 5000"
            self.terminal.run(f"kubectl exec {name} -- sh -c '{asks}'", "STORED")
        more = {pod: count - before[pod] for pod, count in self.stored().items()}
        self.terminal.out(f"  sets that each proxy received from a pod on {node.name}: {more}")
        own = next(pod.name for pod in self.cluster.find(app=PROXY) if pod.node is node)
        if more != {pod: 5 if pod == own else 0 for pod in before}:
            raise Failed("another proxy than that of the pod's own node was used")

    def stored(self) -> dict[str, int]:
        """Requests that each proxy has sent to destinations."""
        count = lambda pod: int(scrape(pod)["corecached_proxy_destination_requests_total"])
        return {pod.name: count(pod) for pod in self.cluster.find(app=PROXY)}

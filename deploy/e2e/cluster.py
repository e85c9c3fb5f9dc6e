"""The stand-in of the control plane: it keeps applied objects, and creates the pods of StatefulSets,
DaemonSets and Deployments and the endpoints of services. It tracks which nodes send heartbeats. Pods are
run by the nodes."""

import copy
import hashlib
import json
import random
import socket
import string
import threading
import time
import uuid

import network
import sandbox
from node import HEARTBEAT_PORT, Node
from pod import Pod

TURN_S = 0.1
# Seconds without a heartbeat after which a node counts as lost. Kubernetes waits 40 s or more.
NODE_GRACE_S = 4
CONTROLLERS = ("StatefulSet", "DaemonSet", "Deployment")


class Cluster:
    def __init__(self, folder, logs, nodes: int):
        self.dns_service = network.DNS_SERVICE
        self.group = sandbox.group(folder)
        self.lock = threading.RLock()
        self.objects: dict[tuple[str, str], dict] = {}
        self.releases: dict[str, list[tuple[str, str]]] = {}
        self.pods: dict[str, Pod] = {}
        self.notes: list[str] = []
        self.config_version = 0
        self._heard = {}
        self._addresses: dict[str, str] = {}
        self._served = None
        network.lay(nodes)
        self.nodes = [Node(number, folder / f"node-{number}", logs, self) for number in range(1, nodes + 1)]

    def start(self, tars) -> None:
        threads = [threading.Thread(target=node.containerd.wait, args=(tars,)) for node in self.nodes]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if not all(node.runtime for node in self.nodes):
            raise RuntimeError("not all nodes have a container runtime")
        for work in (self._listen, self._work):
            threading.Thread(target=work, daemon=True).start()
        while not all(self.hears(node) for node in self.nodes):
            time.sleep(TURN_S)

    # --- requests

    def apply(self, found: list[dict], release: str | None = None) -> None:
        """Creates or replaces objects. Objects that the release had before and has no more are deleted."""
        with self.lock:
            keys = []
            for one in found:
                key = (one["kind"], one["metadata"]["name"])
                keys.append(key)
                before = self.objects.get(key)
                new = copy.deepcopy(one)
                if one["kind"] == "StatefulSet" and "replicas" not in one["spec"]:
                    new["spec"]["replicas"] = before["spec"]["replicas"] if before else 1
                self.objects[key] = new
                if one["kind"] == "Pod":
                    self._run(copy.deepcopy(one), one["metadata"]["name"], owner=None)
            if release is not None:
                for key in set(self.releases.get(release, [])) - set(keys):
                    self.objects.pop(key, None)
                self.releases[release] = keys
            self.config_version += 1

    def delete(self, key: tuple[str, str], grace_s: int | None = None) -> bool:
        with self.lock:
            if key[0] == "Pod":
                pod = self.pods.get(key[1])
                if pod:
                    pod.end(grace_s)
                self.objects.pop(key, None)
                return pod is not None
            return self.objects.pop(key, None) is not None

    def delete_release(self, release: str) -> bool:
        with self.lock:
            keys = self.releases.pop(release, None)
            for key in keys or []:
                self.objects.pop(key, None)
            return keys is not None

    def config(self, kind: str, name: str) -> dict:
        with self.lock:
            if (kind, name) not in self.objects:
                raise KeyError(f"{kind} {name} is not there")
            return self.objects[(kind, name)]

    def note(self, text: str) -> None:
        if text not in self.notes:
            self.notes.append(text)

    def find(self, **labels: str) -> list[Pod]:
        """Pods with these labels, by name."""
        with self.lock:
            found = [pod for pod in self.pods.values() if labels.items() <= pod.manifest["metadata"].get("labels", {}).items()]
        return sorted(found, key=lambda pod: pod.name)

    # --- state

    def changed(self) -> None:
        """Updates the rules for services on the nodes after the readiness of a pod has changed."""
        with self.lock:
            rules = self._rules()
            if rules == self._served:
                return
            self._served = rules
            for number, services in rules.items():
                network.serve(number, services)

    def gone(self, pod: Pod) -> None:
        with self.lock:
            if self.pods.get(pod.name) is pod:
                del self.pods[pod.name]
        self.changed()

    def hears(self, node: Node) -> bool:
        return time.monotonic() - self._heard.get(node.number, -NODE_GRACE_S) < NODE_GRACE_S

    def endpoints(self, service: dict) -> list[Pod]:
        """The pods that are endpoints of a service."""
        pods = self.find(**service["spec"]["selector"])
        also = service["spec"].get("publishNotReadyAddresses", False)
        return [pod for pod in pods if pod.address and (pod.is_ready or also)]

    def address_of(self, service: dict) -> str | None:
        """The address of a service; None if it is headless."""
        wanted = service["spec"].get("clusterIP")
        if wanted == "None":
            return None
        name = service["metadata"]["name"]
        with self.lock:
            return self._addresses.setdefault(name, wanted or f"10.96.1.{len(self._addresses) + 1}")

    def services(self) -> list[dict]:
        with self.lock:
            return [one for (kind, _), one in self.objects.items() if kind == "Service" and "selector" in one["spec"]]

    def _rules(self) -> dict[int, list]:
        """For each node, the addresses of services and the endpoints that they lead to."""
        dns = [(network.DNS_SERVICE, protocol, 53, [(network.FABRIC, 53)]) for protocol in ("udp", "tcp")]
        rules = {node.number: list(dns) for node in self.nodes}
        for service in self.services():
            address = self.address_of(service)
            if address is None:
                continue
            pods = self.endpoints(service)
            for node in self.nodes:
                own = [p for p in pods if p.node is node] if service["spec"].get("internalTrafficPolicy") == "Local" else pods
                for port in service["spec"]["ports"]:
                    targets = [(pod.address, port_of(pod, port)) for pod in own]
                    rules[node.number].append((address, "tcp", port["port"], targets))
        return rules

    def _listen(self) -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as receiver:
            receiver.bind((network.FABRIC, HEARTBEAT_PORT))
            while True:
                self._heard[int(receiver.recv(16))] = time.monotonic()

    def _work(self) -> None:
        while True:
            try:
                with self.lock:
                    for (kind, name), one in list(self.objects.items()):
                        if kind in CONTROLLERS:
                            self._control(kind, name, one)
                    self._collect()
                    self.changed()
            except Exception as error:  # Noted, because a stopped controller looks like a slow one.
                self.note(f"controller: {type(error).__name__}: {error}")
            time.sleep(TURN_S)

    @staticmethod
    def revision(one: dict) -> str:
        """A hash of the pod template of a controller."""
        return hashlib.sha256(json.dumps(one["spec"]["template"], sort_keys=True).encode()).hexdigest()[:10]

    def _collect(self) -> None:
        """Ends pods whose controller was deleted."""
        for pod in self.pods.values():
            owner = pod.manifest["metadata"].get("owner")
            if owner and tuple(owner) not in self.objects:
                pod.end()

    def _control(self, kind: str, name: str, one: dict) -> None:
        mine = {pod.name: pod for pod in self.pods.values() if pod.manifest["metadata"].get("owner") == [kind, name]}
        spec = one["spec"]
        revision = self.revision(one)
        if kind == "DaemonSet":
            missing = [node for node in self.nodes if not any(pod.node is node for pod in mine.values())]
            for node in missing:
                self._run(template(one, revision), f"{name}-{tail()}", owner=[kind, name], node=node)
            extra = []
        elif kind == "StatefulSet":
            if spec.get("podManagementPolicy") != "Parallel":
                raise ValueError(f"StatefulSet {name}: only podManagementPolicy Parallel is supported here")
            wanted = [f"{name}-{ordinal}" for ordinal in range(spec["replicas"])]
            for pod_name in wanted:
                if pod_name not in mine and pod_name not in self.pods:
                    self._run(template(one, revision, pod_name), pod_name, owner=[kind, name])
            extra = [pod for pod in mine.values() if pod.name not in wanted]
        else:
            wanted = spec.get("replicas", 1)
            alive = [pod for pod in mine.values() if not pod.ending.is_set()]
            for _ in range(wanted - len(alive)):
                self._run(template(one, revision), f"{name}-{revision}-{tail()}", owner=[kind, name])
            extra = alive[wanted:]
        for pod in extra:
            pod.end()
        self._renew(mine, revision, spec)

    def _renew(self, mine: dict[str, Pod], revision: str, spec: dict) -> None:
        """Replaces old pods one by one, from the last, while all others have been ready for
        minReadySeconds."""
        old = [pod for pod in mine.values() if pod.manifest["metadata"]["revision"] != revision]
        if not old:
            return
        settled = time.monotonic() - spec.get("minReadySeconds", 0)
        others = [pod for pod in mine.values() if pod not in old]
        if all(pod.is_ready and pod.ready_since <= settled for pod in others) and not any(pod.ending.is_set() for pod in old):
            last = max(old, key=lambda pod: (len(pod.name), pod.name))
            if all(pod.is_ready for pod in old if pod is not last):
                last.end()

    def _run(self, manifest: dict, name: str, owner, node: Node | None = None) -> None:
        """Creates a pod, on the node with the fewest pods of this owner."""
        load = lambda node: (
            sum(pod.node is node and pod.manifest["metadata"].get("owner") == owner for pod in self.pods.values()),
            node.number,
        )
        alive = [node for node in self.nodes if self.hears(node)] or self.nodes
        chosen = node or min(alive, key=load)
        meta = manifest["metadata"]
        meta |= {"name": name, "namespace": meta.get("namespace", "default"), "uid": str(uuid.uuid4()), "owner": owner}
        self.pods[name] = Pod(manifest, chosen, self)


def template(one: dict, revision: str, hostname: str | None = None) -> dict:
    pod = copy.deepcopy(one["spec"]["template"])
    pod |= {"kind": "Pod", "apiVersion": "v1"}
    pod["metadata"] = pod.get("metadata", {}) | {"revision": revision, "namespace": one["metadata"].get("namespace", "default")}
    if hostname:
        pod["spec"] |= {"hostname": hostname, "subdomain": one["spec"]["serviceName"]}
    return pod


def tail() -> str:
    return "".join(random.choices(string.ascii_lowercase + string.digits, k=5))


def port_of(pod: Pod, port: dict) -> int:
    target = port.get("targetPort", port["port"])
    if isinstance(target, int):
        return target
    return next(p["containerPort"] for c in pod.manifest["spec"]["containers"] for p in c.get("ports", []) if p.get("name") == target)

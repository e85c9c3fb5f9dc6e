"""A pod on its node, handled as by a kubelet: sandbox, containers, probes, restarts, and an orderly stop."""

import http.client
import shutil
import threading
import time

import grpc

import network
import pod_config
import sandbox

TURN_S = 0.1
# Seconds before a restart. Kubelets begin with ten seconds and double them; here a fault must fit into a
# short play.
RESTART_S = 1
PROBES = ("startupProbe", "readinessProbe", "livenessProbe")


class Probe:
    """A probe of a container: when it is due, and its consecutive failures or successes."""

    def __init__(self, spec: dict, now: float):
        self.spec = spec
        self.due = now + spec.get("initialDelaySeconds", 0)
        self.passed = self.failed = 0

    def take(self, ok: bool, now: float) -> bool | None:
        """Adds a result. Returns True or False when a threshold is reached, else None."""
        self.due = now + self.spec.get("periodSeconds", 10)
        self.passed, self.failed = (self.passed + 1, 0) if ok else (0, self.failed + 1)
        if self.passed >= self.spec.get("successThreshold", 1):
            return True
        return False if self.failed >= self.spec.get("failureThreshold", 3) else None


class Container:
    """A container of a pod, across all its restarts."""

    def __init__(self, spec: dict):
        self.spec = spec
        self.id, self.attempt, self.probes = "", -1, {}
        self.is_running = self.is_started = self.is_ready = False
        self.exit_code, self.reason, self.again_at = None, "", 0.0
        # When the runtime was last asked to start it.
        self.began_at = None
        self.ends = []

    @property
    def restarts(self) -> int:
        return max(0, self.attempt)

    def begun(self, identity: str, now: float) -> None:
        self.id, self.attempt = identity, self.attempt + 1
        self.probes = {name: Probe(self.spec[name], now) for name in PROBES if name in self.spec}
        self.is_running, self.is_started = True, "startupProbe" not in self.probes
        self.is_ready = self.is_started and "readinessProbe" not in self.probes


class Pod:
    """A pod. It has a thread of its own, and runs until `end` is called."""

    def __init__(self, manifest: dict, node, cluster):
        self.manifest, self.node, self.cluster = manifest, node, cluster
        self.name = manifest["metadata"]["name"]
        manifest["spec"]["nodeName"] = node.name
        manifest["status"] = {"hostIP": node.address, "phase": "Pending"}
        self.containers = [Container(spec) for spec in manifest["spec"]["containers"]]
        self.sandbox_id, self.sandbox_config, self.error = "", {}, ""
        self.born, self.ready_since = time.monotonic(), None
        self.ending = threading.Event()
        self.grace_s = manifest["spec"].get("terminationGracePeriodSeconds", 30)
        self._seen_version = None
        threading.Thread(target=self._live, daemon=True, name=self.name).start()

    @property
    def address(self) -> str:
        return self.manifest["status"].get("podIP", "")

    @property
    def is_ready(self) -> bool:
        return self.ready_since is not None and not self.ending.is_set() and self.cluster.hears(self.node)

    def end(self, grace_s: int | None = None) -> None:
        if grace_s is not None:
            self.grace_s = min(grace_s, self.grace_s)
        self.ending.set()

    def _live(self) -> None:
        sandbox.join_network(network.namespace(self.node.number))
        try:
            self._start()
            while not self.ending.wait(TURN_S):
                self._turn()
        except Exception as error:  # Any error is shown in the status, and the pod is removed in the end.
            self.error = f"{type(error).__name__}: {error}"
            self.manifest["status"] |= {"phase": "Failed", "message": self.error}
            self.ending.wait()
        self._stop()
        self.cluster.gone(self)

    # --- begin

    def _start(self) -> None:
        self.sandbox_config = pod_config.sandbox(self.manifest, self.node, 0)
        runtime = self.node.runtime
        self.sandbox_id = runtime.call("RunPodSandbox", config=self.sandbox_config).pod_sandbox_id
        self.node.learn_default(self.sandbox_id)
        status = runtime.call("PodSandboxStatus", pod_sandbox_id=self.sandbox_id).status
        self.manifest["status"]["podIP"] = status.network.ip
        for spec in self.manifest["spec"].get("initContainers", []):
            self._run_to_end(Container(spec))
        for one in self.containers:
            while not self.ending.is_set():
                try:
                    self._begin(one)
                    break
                except FileNotFoundError as error:
                    # As a kubelet after CreateContainerError: what is missing may appear later.
                    self.cluster.note(f"{self.name}: {error}")
                    time.sleep(RESTART_S)
        self.manifest["status"]["phase"] = "Running"

    def _mounted(self) -> dict:
        folder = self.node.volumes / self.manifest["metadata"]["uid"]
        return pod_config.volumes(self.manifest, folder, self.cluster.config)

    def _begin(self, one: Container) -> None:
        config = pod_config.container(self.manifest, one.spec, self.node, self._mounted(), one.attempt + 1)
        runtime = self.node.runtime
        made = runtime.call(
            "CreateContainer", pod_sandbox_id=self.sandbox_id, config=config, sandbox_config=self.sandbox_config
        )
        one.began_at = time.monotonic()
        runtime.call("StartContainer", container_id=made.container_id)
        one.begun(made.container_id, time.monotonic())

    def _run_to_end(self, one: Container) -> None:
        self._begin(one)
        while one.is_running and not self.ending.wait(TURN_S):
            self._look(one)
        if one.exit_code:
            raise RuntimeError(f"init container {one.spec['name']} ended with {one.exit_code}")

    # --- live

    def _turn(self) -> None:
        for one in self.containers:
            if one.is_running:
                self._look(one)
            if one.is_running:
                self._probe(one)
            elif self._is_restarted(one) and time.monotonic() >= one.again_at:
                self._begin(one)
        self._mounted_again()
        phase = "Running"
        if all(not one.is_running and not self._is_restarted(one) for one in self.containers):
            phase = "Failed" if any(one.exit_code for one in self.containers) else "Succeeded"
        self.manifest["status"]["phase"] = phase
        ready = phase == "Running" and all(one.is_running and one.is_ready for one in self.containers)
        if ready != (self.ready_since is not None):
            self.ready_since = time.monotonic() if ready else None
            self.cluster.changed()

    def _mounted_again(self) -> None:
        """Updates volumes after a ConfigMap or Secret has changed. Kubelets take up to a minute for this."""
        if self.cluster.config_version != self._seen_version:
            self._seen_version = self.cluster.config_version
            self._mounted()

    def _is_restarted(self, one: Container) -> bool:
        policy = self.manifest["spec"].get("restartPolicy", "Always")
        return policy == "Always" or (policy == "OnFailure" and bool(one.exit_code))

    def _look(self, one: Container) -> None:
        status = self.node.runtime.call("ContainerStatus", container_id=one.id).status
        if status.state != self.node.runtime.types.ContainerStatus.EXITED:
            return
        one.is_running = one.is_started = one.is_ready = False
        one.exit_code, one.reason = status.exit_code, status.reason
        one.ends.append((status.exit_code, status.reason))
        one.again_at = time.monotonic() + RESTART_S

    def _probe(self, one: Container) -> None:
        now = time.monotonic()
        for name, probe in one.probes.items():
            if probe.due > now or one.is_started == (name == "startupProbe"):
                continue
            outcome = probe.take(self._ask(one, probe.spec), now)
            if name == "startupProbe" and outcome:
                one.is_started = True
                one.is_ready = "readinessProbe" not in one.probes
            elif name == "readinessProbe" and outcome is not None:
                one.is_ready = outcome
            elif outcome is False:
                self.cluster.note(f"{self.name}: {name} failed {probe.failed} times: container {one.spec['name']} is stopped")
                self.node.runtime.call("StopContainer", self.grace_s + 30, container_id=one.id, timeout=self.grace_s)
                return

    def _ask(self, one: Container, spec: dict) -> bool:
        timeout = spec.get("timeoutSeconds", 1)
        if "exec" in spec:
            return self.node.runtime.execute(one.id, spec["exec"]["command"], timeout)[0] == 0
        where = spec.get("httpGet") or spec["tcpSocket"]
        port = next((p["containerPort"] for p in one.spec.get("ports", []) if p.get("name") == where["port"]), where["port"])
        connection = http.client.HTTPConnection(self.address, int(port), timeout=timeout)
        try:
            connection.connect()
            if "httpGet" not in spec:
                return True
            connection.request("GET", where["path"])
            return 200 <= connection.getresponse().status < 400
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()

    # --- end

    def _stop(self) -> None:
        """Runs the preStop hook, then sends SIGTERM, both within the grace period; then SIGKILL."""
        self.cluster.changed()
        runtime, deadline = self.node.runtime, time.monotonic() + self.grace_s
        threads = [threading.Thread(target=self._stop_container, args=(one, deadline)) for one in self.containers if one.is_running]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for call in ("StopPodSandbox", "RemovePodSandbox"):
            try:
                if self.sandbox_id:
                    runtime.call(call, pod_sandbox_id=self.sandbox_id)
            except grpc.RpcError as error:
                self.cluster.note(f"{self.name}: {call}: {error.details()}")
        shutil.rmtree(self.node.volumes / self.manifest["metadata"]["uid"], ignore_errors=True)

    def _stop_container(self, one: Container, deadline: float) -> None:
        left = lambda: max(0, round(deadline - time.monotonic()))
        hook = one.spec.get("lifecycle", {}).get("preStop", {}).get("exec")
        if hook and left():
            code, said = self.node.runtime.execute(one.id, hook["command"], left())
            if code:
                self.cluster.note(f"{self.name}: preStop of {one.spec['name']} failed ({code}): {said.strip()}")
        try:
            self.node.runtime.call("StopContainer", left() + 30, container_id=one.id, timeout=left())
            status = self.node.runtime.call("ContainerStatus", container_id=one.id).status
            if status.exit_code and self.grace_s > 1:
                self.cluster.note(f"{self.name}: {one.spec['name']} ended with {status.exit_code} ({status.reason})")
        except grpc.RpcError as error:
            self.cluster.note(f"{self.name}: StopContainer: {error.details()}")

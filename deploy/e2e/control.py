"""Executes the commands of the kubectl and helm stand-ins in PATH, which arrive over a socket. It supports
the commands of the tutorial, and some that help a person to inspect the cluster. Charts are rendered by
the real helm."""

import json
import os
import pathlib
import socketserver
import subprocess
import threading
import time
import uuid

import yaml
from jsonpath_ng.ext import parse

import images
from containerd import NAMESPACE

KINDS = {
    "pod": "Pod", "pods": "Pod", "po": "Pod", "service": "Service", "services": "Service", "svc": "Service",
    "endpoints": "Endpoints", "ep": "Endpoints", "statefulset": "StatefulSet", "statefulsets": "StatefulSet", "sts": "StatefulSet",
    "daemonset": "DaemonSet", "daemonsets": "DaemonSet", "ds": "DaemonSet", "deployment": "Deployment", "deployments": "Deployment",
    "deploy": "Deployment", "configmap": "ConfigMap", "configmaps": "ConfigMap", "cm": "ConfigMap",
}  # fmt: skip
# Options of kubectl that are followed by a value.
WITH_WORD = {"-l", "--selector", "-o", "--output", "-n", "--namespace", "-f", "--filename", "-c", "--container", "--image", "--restart", "--grace-period", "--replicas", "--timeout"}
LONG = {"-l": "--selector", "-o": "--output", "-n": "--namespace", "-f": "--filename", "-c": "--container", "-i": "--stdin", "-t": "--tty"}
WAIT_S = 60


class Refused(Exception):
    """The command fails with this message on standard error."""


def split(words: list[str]) -> tuple[list[str], dict[str, str], list[str]]:
    """Returns plain words, options, and the words after `--`."""
    plain, options = [], {}
    at = 0
    while at < len(words):
        word = words[at]
        at += 1
        if word == "--":
            return plain, options, words[at:]
        if not word.startswith("-") or word == "-":
            plain.append(word)
        elif word == "-it":
            options |= {"--stdin": "true", "--tty": "true"}
        elif "=" in word:
            name, value = word.split("=", 1)
            options[LONG.get(name, name)] = value
        elif word in WITH_WORD:
            if at == len(words):
                raise Refused(f"error: {word} needs a value")
            options[LONG.get(word, word)] = words[at]
            at += 1
        else:
            options[LONG.get(word, word)] = "true"
    return plain, options, []


class Control:
    def __init__(self, cluster, socket: pathlib.Path, helm: pathlib.Path):
        self.cluster, self.helm = cluster, helm
        # Pods of `helm test`, by release.
        self._hooks: dict[str, list] = {}
        control = self

        class Answer(socketserver.StreamRequestHandler):
            def handle(self):
                request = json.loads(self.rfile.readline())
                try:
                    answer = control.answer(**request)
                except Refused as error:
                    answer = {"error": f"{error}\n", "code": 1}
                except Exception as error:  # Shown to the person at the terminal.
                    answer = {"error": f"the stand-in failed: {type(error).__name__}: {error}\n", "code": 70}
                self.wfile.write(json.dumps(answer).encode() + b"\n")

        server = socketserver.ThreadingUnixStreamServer(str(socket), Answer)
        threading.Thread(target=server.serve_forever, daemon=True).start()

    def answer(self, tool: str, words: list[str], stdin: str = "", folder: str = "/") -> dict:
        verb, rest = (words[0], words[1:]) if words else ("", [])
        method = getattr(self, f"{tool}_{verb}", None)
        if method is None:
            raise Refused(f"{tool} {verb}: not supported by the stand-in")
        return method(rest, stdin, folder)

    # --- kubectl

    def kubectl_get(self, words, stdin, folder):
        del stdin, folder
        plain, options, _ = split(words)
        if not plain:
            raise Refused("error: you must say what to get")
        kind = kind_of(plain[0])
        found = self.listed(kind, plain[1:], options.get("--selector"))
        output = options.get("--output", "")
        if output.startswith("jsonpath="):
            # With one name the result is that object, else a list.
            whole = found[0] if len(plain) == 2 else {"items": found}
            return {"out": jsonpath(output.removeprefix("jsonpath="), whole)}
        if output == "name":
            return {"out": "".join(f"{kind.lower()}/{one['metadata']['name']}\n" for one in found)}
        if output in ("yaml", "json"):
            return {"out": yaml.safe_dump({"items": found}) if output == "yaml" else json.dumps({"items": found})}
        if not found:
            return {"error": "No resources found in default namespace.\n"}
        return {"out": table(kind, found, wide=output == "wide")}

    def kubectl_describe(self, words, stdin, folder):
        del stdin, folder
        plain, options, _ = split(words)
        return {"out": yaml.safe_dump_all(self.listed(kind_of(plain[0]), plain[1:], options.get("--selector")))}

    def kubectl_run(self, words, stdin, folder):
        del stdin, folder
        plain, options, command = split(words)
        name, command = plain[0], command or plain[1:]
        image = options.get("--image", "")
        if image not in images.NAMES:
            raise Refused(f"error: image {image!r}: not available; these are: {', '.join(images.NAMES)}")
        # The container only waits; the command runs in it by `exec`.
        container = {"name": name, "image": image, "command": ["sh", "-c", "trap 'exit 0' TERM; while :; do sleep 1 & wait $!; done"]}
        pod = {"kind": "Pod", "apiVersion": "v1", "metadata": {"name": name, "labels": {"run": name}}, "spec": {"containers": [container], "restartPolicy": options.get("--restart", "Always"), "terminationGracePeriodSeconds": 1}}
        self.cluster.apply([pod])
        pod = self._running(name)
        if "--stdin" not in options:
            return {"out": f"pod/{name} created\n"}
        answer = self._in(pod, command or ["sh"], options)
        if "--rm" in options:
            answer["then"] = {"tool": "kubectl", "words": ["delete", "pod", name]}
        return answer

    def kubectl_exec(self, words, stdin, folder):
        del stdin, folder
        plain, options, command = split(words)
        if not command and len(plain) > 1:
            plain, command = plain[:1], plain[1:]
        return self._in(self._running(plain[0].removeprefix("pod/")), command, options)

    def _running(self, name: str):
        end = time.monotonic() + WAIT_S
        while time.monotonic() < end:
            pod = self.cluster.pods.get(name)
            if pod is None:
                raise Refused(f'Error from server (NotFound): pods "{name}" not found')
            if pod.error:
                raise Refused(f"error: {name}: {pod.error}")
            if any(one.is_running for one in pod.containers):
                return pod
            time.sleep(0.05)
        raise Refused(f"error: timed out waiting for {name}")

    @staticmethod
    def _in(pod, command: list[str], options: dict) -> dict:
        one = next((c for c in pod.containers if c.spec["name"] == options.get("--container", c.spec["name"])), None)
        if one is None:
            raise Refused(f"error: container {options['--container']} is not in {pod.name}")
        run = pod.node.containerd.ctr("--namespace", NAMESPACE, "task", "exec", "--exec-id", uuid.uuid4().hex[:12])
        return {"run": run, "command": [one.id, *command], "terminal": "--tty" in options}

    def kubectl_create(self, words, stdin, folder):
        return self._apply(words, stdin, folder, "created")

    def kubectl_apply(self, words, stdin, folder):
        return self._apply(words, stdin, folder, "configured")

    def _apply(self, words, stdin, folder, said):
        _, options, _ = split(words)
        name = options.get("--filename", "")
        text = stdin if name == "-" else (pathlib.Path(folder) / name).read_text()
        found = [one for one in yaml.safe_load_all(text) if one]
        self.cluster.apply(found)
        return {"out": "".join(f"{one['kind'].lower()}/{one['metadata']['name']} {said}\n" for one in found)}

    def kubectl_delete(self, words, stdin, folder):
        plain, options, _ = split(words)
        if "--filename" in options:
            name = options["--filename"]
            text = stdin if name == "-" else (pathlib.Path(folder) / name).read_text()
            keys = [(one["kind"], one["metadata"]["name"]) for one in yaml.safe_load_all(text) if one]
        else:
            if len(plain) == 1 and "/" in plain[0]:
                plain = plain[0].split("/")
            keys = [(kind_of(plain[0]), name) for name in plain[1:]]
        grace = options.get("--grace-period")
        out = ""
        for kind, name in keys:
            if not self.cluster.delete((kind, name), None if grace is None else int(grace)):
                raise Refused(f'Error from server (NotFound): {kind.lower()}s "{name}" not found')
            out += f'{kind.lower()} "{name}" deleted\n'
        if options.get("--wait", "true") == "true":
            self.wait(lambda: not any(kind == "Pod" and name in self.cluster.pods for kind, name in keys))
        return {"out": out}

    def kubectl_scale(self, words, stdin, folder):
        del stdin, folder
        plain, options, _ = split(words)
        kind, name = plain[0].split("/") if "/" in plain[0] else plain[:2]
        with self.cluster.lock:
            self.cluster.config(kind_of(kind), name)["spec"]["replicas"] = int(options["--replicas"])
        return {"out": f"{kind_of(kind).lower()}.apps/{name} scaled\n"}

    def kubectl_rollout(self, words, stdin, folder):
        del stdin, folder
        plain, _, _ = split(words)
        action, (kind, name) = plain[0], plain[1].split("/") if "/" in plain[1] else plain[1:3]
        if action == "restart":
            with self.cluster.lock:
                one = self.cluster.config(kind_of(kind), name)
                meta = one["spec"]["template"].setdefault("metadata", {})
                meta.setdefault("annotations", {})["kubectl.kubernetes.io/restartedAt"] = str(time.time_ns())
            return {"out": f"{kind_of(kind).lower()}.apps/{name} restarted\n"}
        if action != "status":
            raise Refused(f"kubectl rollout {action}: not supported by the stand-in")
        self.wait(lambda: self.settled(kind_of(kind), name))
        return {"out": f"{kind_of(kind).lower()} {name}: all pods are new and ready\n"}

    def kubectl_logs(self, words, stdin, folder):
        del stdin, folder
        plain, _, _ = split(words)
        pod = self._running(plain[0])
        (path, *_) = sorted(pod.node.logs.glob(f"{pod.name}.*.log"), key=os.path.getmtime, reverse=True)
        # Each line begins with the time, the stream, and a flag whether it is complete.
        return {"out": "".join(line.split(" ", 3)[3] for line in path.open())}

    # --- helm

    def helm_install(self, words, stdin, folder):
        del stdin
        release, found = self._rendered(words, folder)
        if release in self.cluster.releases:
            raise Refused("Error: INSTALLATION FAILED: cannot re-use a name that is still in use")
        self.cluster.apply(without_hooks(found), release)
        return {"out": f"NAME: {release}\nNAMESPACE: default\nSTATUS: deployed\nREVISION: 1\n"}

    def helm_upgrade(self, words, stdin, folder):
        del stdin
        release, found = self._rendered([*words, "--is-upgrade"], folder)
        if release not in self.cluster.releases:
            raise Refused(f'Error: UPGRADE FAILED: "{release}" has no deployed releases')
        self.cluster.apply(without_hooks(found), release)
        return {"out": f'Release "{release}" has been upgraded. Happy Helming!\n'}

    def helm_delete(self, words, stdin, folder):
        del stdin, folder
        (release,) = words
        if not self.cluster.delete_release(release):
            raise Refused(f"Error: uninstall: Release not loaded: {release}: release: not found")
        return {"out": f'release "{release}" uninstalled\n'}

    helm_uninstall = helm_delete

    def helm_test(self, words, stdin, folder):
        """Runs the test pods of the release one after the other, each until it ends."""
        del stdin, folder
        (release,) = words
        out, failed = f"NAME: {release}\n", False
        for pod in self._hooks.get(release, []):
            name = pod["metadata"]["name"]
            self.cluster.apply([pod])
            self.wait(lambda: self.cluster.pods[name].manifest["status"]["phase"] in ("Succeeded", "Failed"))
            ended = self.cluster.pods[name]
            phase = ended.manifest["status"]["phase"]
            failed |= phase != "Succeeded"
            for one in ended.containers:
                out += f"  {name}/{one.spec['name']}: {one.exit_code}\n"
            out += f"TEST SUITE:     {name}\nPhase:          {phase}\n"
            self.cluster.delete(("Pod", name), 1)
            self.wait(lambda: name not in self.cluster.pods)
        return {"out": out, "code": int(failed), "error": "Error: test failed\n" if failed else ""}

    def _rendered(self, words: list[str], folder: str):
        done = subprocess.run([self.helm, "template", *words], capture_output=True, text=True, cwd=folder, check=False)
        if done.returncode:
            raise Refused(done.stderr.strip())
        found = [one for one in yaml.safe_load_all(done.stdout) if one]
        release = words[0]
        is_test = lambda one: one["metadata"].get("annotations", {}).get("helm.sh/hook") == "test"
        self._hooks[release] = [one for one in found if is_test(one)]
        return release, found

    # --- shared by both

    def listed(self, kind: str, names: list[str], selector: str | None) -> list[dict]:
        cluster = self.cluster
        with cluster.lock:
            if kind == "Pod":
                found = [described(pod) for pod in sorted(cluster.pods.values(), key=lambda pod: pod.name)]
            elif kind == "Endpoints":
                found = [endpoints(service, cluster.endpoints(service)) for service in cluster.services()]
            else:
                found = [one for (of, _), one in sorted(cluster.objects.items()) if of == kind]
        if names:
            for name in names:
                if name not in [one["metadata"]["name"] for one in found]:
                    raise Refused(f'Error from server (NotFound): {kind.lower()}s "{name}" not found')
            found = [one for one in found if one["metadata"]["name"] in names]
        if selector:
            wanted = dict(term.split("=", 1) for term in selector.replace("==", "=").split(","))
            found = [one for one in found if wanted.items() <= one["metadata"].get("labels", {}).items()]
        return found

    def settled(self, kind: str, name: str) -> bool:
        """Tells whether all pods of a controller exist, are ready, and have its current template."""
        cluster = self.cluster
        with cluster.lock:
            one = cluster.objects.get((kind, name))
            if one is None:
                return False
            mine = [pod for pod in cluster.pods.values() if pod.manifest["metadata"].get("owner") == [kind, name]]
            count = len(cluster.nodes) if kind == "DaemonSet" else one["spec"].get("replicas", 1)
            revisions = {pod.manifest["metadata"]["revision"] for pod in mine}
            return len(mine) == count and all(pod.is_ready for pod in mine) and revisions <= {cluster.revision(one)}

    @staticmethod
    def wait(what, seconds: float = WAIT_S) -> None:
        end = time.monotonic() + seconds
        while not what():
            if time.monotonic() > end:
                raise Refused("error: timed out waiting for the condition")
            time.sleep(0.05)


def kind_of(word: str) -> str:
    kind = KINDS.get(word.lower().split(".")[0])
    if kind is None:
        raise Refused(f'error: the server doesn\'t have a resource type "{word}"')
    return kind


def without_hooks(found: list[dict]) -> list[dict]:
    return [one for one in found if "helm.sh/hook" not in one["metadata"].get("annotations", {})]


def jsonpath(template: str, whole: dict) -> str:
    """Evaluates a jsonpath template of kubectl: text with paths in braces."""
    out, rest = "", template
    while "{" in rest:
        text, _, rest = rest.partition("{")
        path, _, rest = rest.partition("}")
        values = [match.value for match in parse("$" + path if path.startswith(".") else path).find(whole)]
        out += text + " ".join(value if isinstance(value, str) else json.dumps(value) for value in values)
    return out + rest


def described(pod) -> dict:
    status = dict(pod.manifest["status"])
    status["conditions"] = [{"type": "Ready", "status": str(pod.is_ready)}]
    status["containerStatuses"] = [
        {"name": one.spec["name"], "ready": one.is_ready, "restartCount": one.restarts} for one in pod.containers
    ]
    status["reason"] = "Terminating" if pod.ending.is_set() else status.get("phase")
    return pod.manifest | {"status": status, "age": int(time.monotonic() - pod.born)}


def endpoints(service: dict, pods: list) -> dict:
    subset = {
        "addresses": [{"ip": pod.address, "targetRef": {"name": pod.name}} for pod in pods],
        "ports": [{"port": port["port"], "name": port.get("name", "")} for port in service["spec"]["ports"]],
    }
    return {"kind": "Endpoints", "metadata": service["metadata"], "subsets": [subset] if pods else []}


def table(kind: str, found: list[dict], wide: bool) -> str:
    if kind == "Pod":
        rows = [["NAME", "READY", "STATUS", "RESTARTS", "AGE", *(["IP", "NODE"] if wide else [])]]
        for one in found:
            status = one["status"]
            states = status["containerStatuses"]
            ready = f"{sum(state['ready'] for state in states)}/{len(states)}"
            more = [status.get("podIP", "<none>"), one["spec"]["nodeName"]] if wide else []
            restarts = sum(state["restartCount"] for state in states)
            rows.append([one["metadata"]["name"], ready, status["reason"], str(restarts), f"{one['age']}s", *more])
    elif kind == "Endpoints":
        rows = [["NAME", "ENDPOINTS"]]
        for one in found:
            pairs = [f"{a['ip']}:{p['port']}" for s in one["subsets"] for a in s["addresses"] for p in s["ports"]]
            rows.append([one["metadata"]["name"], ",".join(pairs) or "<none>"])
    elif kind == "Service":
        rows = [["NAME", "TYPE", "CLUSTER-IP", "PORT(S)"]]
        for one in found:
            spec = one["spec"]
            ports = ",".join(f"{port['port']}/TCP" for port in spec["ports"])
            rows.append([one["metadata"]["name"], spec.get("type", "ClusterIP"), spec.get("clusterIP", "<assigned>"), ports])
    else:
        rows = [["NAME"], *[[one["metadata"]["name"]] for one in found]]
    widths = [max(map(len, column)) for column in zip(*rows)]
    return "".join("   ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() + "\n" for row in rows)


"""Translates the manifest of a pod for the container runtime: environment, volumes, limits, users and
seccomp profiles."""

import base64
import os
import pathlib
import re
import uuid

import images

UNITS = {"": 1, "k": 10**3, "M": 10**6, "G": 10**9, "Ki": 2**10, "Mi": 2**20, "Gi": 2**30}
CPU_PERIOD_US = 100_000


def bytes_of(quantity) -> int:
    number, unit = re.fullmatch(r"([0-9.]+)([A-Za-z]*)", str(quantity)).groups()
    return int(float(number) * UNITS[unit])


def cores_of(quantity) -> float:
    text = str(quantity)
    return float(text.removesuffix("m")) / 1000 if text.endswith("m") else float(text)


def field(pod: dict, path: str) -> str:
    """The value of a field of the manifest that a `fieldRef` names."""
    at = pod
    for part in path.split("."):
        at = at.get(part, "")
    return str(at)


def environment(pod: dict, container: dict, objects) -> list[dict]:
    named = []
    for one in container.get("env", []):
        source = one.get("valueFrom", {})
        if "fieldRef" in source:
            value = field(pod, source["fieldRef"]["fieldPath"])
        elif "secretKeyRef" in source:
            value = data(objects("Secret", source["secretKeyRef"]["name"]))[source["secretKeyRef"]["key"]].decode()
        else:
            value = str(one.get("value", ""))
        named.append({"key": one["name"], "value": value})
    return named


def data(config: dict) -> dict[str, bytes]:
    """The files of a ConfigMap or Secret, by name."""
    decoded = {name: base64.b64decode(text) for name, text in config.get("data", {}).items()} if config["kind"] == "Secret" else {
        name: text.encode() for name, text in config.get("data", {}).items()
    }  # fmt: skip
    return decoded | {name: text.encode() for name, text in config.get("stringData", {}).items()}


def fill(folder: pathlib.Path, files: dict[str, bytes], mode: int, group: int | None) -> None:
    """Replaces all files of a volume at once, as a kubelet does: they are links through `..data` to a
    folder of this version."""
    folder.mkdir(parents=True, exist_ok=True)
    version = folder / f"..{uuid.uuid4().hex}"
    version.mkdir()
    for name, content in files.items():
        (version / name).write_bytes(content)
        (version / name).chmod(mode)
        if group is not None:
            os.chown(version / name, 0, group)
        if not (folder / name).is_symlink():
            (folder / name).symlink_to(f"..data/{name}")
    before = folder / "..data"
    old = before.resolve() if before.is_symlink() else None
    (folder / "..data.new").symlink_to(version.name)
    (folder / "..data.new").rename(before)
    if old:
        for path in old.iterdir():
            path.unlink()
        old.rmdir()


def volumes(pod: dict, folder: pathlib.Path, objects) -> dict[str, pathlib.Path]:
    """Creates or updates all volumes of a pod, and returns the path of each on the node."""
    paths = {}
    group = pod["spec"].get("securityContext", {}).get("fsGroup")
    for volume in pod["spec"].get("volumes", []):
        name = volume["name"]
        path = folder / name
        if "configMap" in volume:
            source = volume["configMap"]
            fill_if_new(path, data(objects("ConfigMap", source["name"])), source.get("defaultMode", 0o644), group)
        elif "secret" in volume:
            source = volume["secret"]
            fill_if_new(path, data(objects("Secret", source["secretName"])), source.get("defaultMode", 0o644), group)
        elif "emptyDir" in volume:
            path.mkdir(parents=True, exist_ok=True)
            path.chmod(0o777)
        elif "hostPath" in volume:
            path = folder.parents[1] / "host" / volume["hostPath"]["path"].lstrip("/")
            path.mkdir(parents=True, exist_ok=True)
        else:
            raise ValueError(f"volume {name}: its kind is not supported here: {sorted(volume)}")
        paths[name] = path
    return paths


def fill_if_new(path: pathlib.Path, files: dict[str, bytes], mode: int, group: int | None) -> None:
    if not path.exists() or {name: (path / name).read_bytes() for name in files if (path / name).exists()} != files:
        fill(path, files, mode, group)


def filter_of(pod: dict, container: dict, node) -> dict:
    """The seccomp profile of a container, where the default profile depends on `node.denies_io_uring`."""
    own = container.get("securityContext", {}).get("seccompProfile")
    wanted = own or pod["spec"].get("securityContext", {}).get("seccompProfile") or {"type": "Unconfined"}
    if wanted["type"] == "Localhost":
        path = node.profiles / wanted["localhostProfile"]
        if not path.exists():
            raise FileNotFoundError(f"seccomp profile {wanted['localhostProfile']} is not on {node.name}")
        return {"profile_type": "Localhost", "localhost_ref": f"localhost/{path}"}
    if wanted["type"] == "RuntimeDefault" and node.denies_io_uring:
        return {"profile_type": "Localhost", "localhost_ref": f"localhost/{node.new_default}"}
    return {"profile_type": wanted["type"]}


def resources(container: dict) -> dict:
    limits = container.get("resources", {}).get("limits", {})
    requests = container.get("resources", {}).get("requests", {})
    out = {"cpu_shares": max(2, int(1024 * cores_of(requests.get("cpu", "2m"))))}
    if "memory" in limits:
        out["memory_limit_in_bytes"] = bytes_of(limits["memory"])
    if "cpu" in limits:
        out |= {"cpu_period": CPU_PERIOD_US, "cpu_quota": int(CPU_PERIOD_US * cores_of(limits["cpu"]))}
    return out


def security(pod: dict, container: dict, node) -> dict:
    whole, own = pod["spec"].get("securityContext", {}), container.get("securityContext", {})
    out = {
        "seccomp": filter_of(pod, container, node),
        "namespace_options": {"pid": "CONTAINER"},
        "readonly_rootfs": own.get("readOnlyRootFilesystem", False),
        "no_new_privs": own.get("allowPrivilegeEscalation", True) is False,
        "capabilities": {
            "add_capabilities": own.get("capabilities", {}).get("add", []),
            "drop_capabilities": own.get("capabilities", {}).get("drop", []),
        },
    }
    user, group = (own.get(name, whole.get(name)) for name in ("runAsUser", "runAsGroup"))
    if user is not None:
        out["run_as_user"] = {"value": user}
    if group is not None:
        out["run_as_group"] = {"value": group}
    if "fsGroup" in whole:
        out["supplemental_groups"] = [whole["fsGroup"]]
    if own.get("runAsNonRoot", whole.get("runAsNonRoot")) and user == 0:
        raise ValueError(f"{pod['metadata']['name']}: runAsNonRoot with user 0")
    return out


def sandbox(pod: dict, node, attempt: int) -> dict:
    ports = [
        {"container_port": port["containerPort"], "host_port": port["hostPort"]}
        for container in pod["spec"]["containers"]
        for port in container.get("ports", [])
        if port.get("hostPort")
    ]
    meta = pod["metadata"]
    return {
        "metadata": {"name": meta["name"], "uid": meta["uid"], "namespace": meta["namespace"], "attempt": attempt},
        "hostname": meta["name"],
        "log_directory": str(node.logs),
        "dns_config": {
            "servers": [node.cluster.dns_service],
            "searches": [f"{meta['namespace']}.svc.cluster.local", "svc.cluster.local", "cluster.local"],
            "options": ["ndots:5"],
        },
        "port_mappings": ports,
        "linux": {"cgroup_parent": node.cluster.group, "security_context": {"seccomp": {"profile_type": "RuntimeDefault"}}},
    }


def container(pod: dict, one: dict, node, paths: dict, attempt: int) -> dict:
    return {
        "metadata": {"name": one["name"], "attempt": attempt},
        "image": {"image": images.NAMES.get(one["image"], one["image"])},
        "command": one.get("command", []),
        "args": [str(word) for word in one.get("args", [])],
        "envs": environment(pod, one, node.cluster.config),
        "mounts": [
            {"container_path": mount["mountPath"], "host_path": str(paths[mount["name"]]), "readonly": mount.get("readOnly", False)}
            for mount in one.get("volumeMounts", [])
        ],
        "log_path": f"{pod['metadata']['name']}.{one['name']}.{pod['metadata']['uid'][:4]}.{attempt}.log",
        "linux": {"resources": resources(one), "security_context": security(pod, one, node)},
    }

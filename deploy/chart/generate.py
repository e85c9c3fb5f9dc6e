#!/usr/bin/env python3
"""Writes values.schema.json and the table of README.md from values.yaml and the comments in it.

    deploy/chart/generate.py            # write
    deploy/chart/generate.py --check    # only report files that are out of date

Comments are `## @param NAME TEXT` for a value in the file, `## @extra NAME TEXT` for one that is not in
the file, and `## @section TITLE`. The type of a value follows from its default; RULES has further
restrictions.
"""

import json
import pathlib
import re
import sys

import yaml

HERE = pathlib.Path(__file__).resolve().parent
PORT = {"type": "integer", "minimum": 1, "maximum": 65535}
PRESET = {"enum": ["", "soft", "hard"]}
COUNT = {"type": "integer", "minimum": 0}
PODS = {"type": ["integer", "string"], "pattern": "^([0-9]+%?)?$", "minimum": 0}
BACKEND = {"enum": ["auto", "io_uring", "epoll"]}
PROBE = {"type": "integer", "minimum": 0}
STRINGS = {"type": "array", "items": {"type": ["string", "number", "boolean"]}}

# Restrictions by name of the value; `*` matches one part of a name.
RULES = {
    # Parent charts put their own values here.
    "global": {"additionalProperties": True},
    "architecture": {"enum": ["standalone", "high-availability"]},
    "replicaCount": {"type": ["integer", "null"], "minimum": 0},
    "image.repository": {"type": "string", "minLength": 1},
    "image.digest": {"type": "string", "pattern": "^(sha256:[0-9a-f]{64})?$"},
    "image.pullPolicy": {"enum": ["Always", "IfNotPresent", "Never"]},
    "logFormat": {"enum": ["text", "json"]},
    "cache.memoryMegabytes": COUNT,
    "cache.maxItemSize": {"type": "string", "pattern": "^[0-9]+[kKmM]?$"},
    "cache.connectionsMax": {"type": "integer", "minimum": 1},
    "cache.threads": COUNT,
    "cache.ioBackend": BACKEND,
    "containerPorts.*": PORT,
    "drain.seconds": {"type": "integer", "minimum": 0, "maximum": 3600},
    "terminationGracePeriodSeconds": {"type": "integer", "minimum": 1},
    "startupProbe.*Seconds": PROBE,
    "readinessProbe.*Seconds": PROBE,
    "livenessProbe.*Seconds": PROBE,
    "command": STRINGS,
    "args": STRINGS,
    "extraArgs": STRINGS,
    "resourcesPreset": {"enum": ["nano", "micro", "small", "medium", "large", "xlarge", "2xlarge", "none"]},
    "guaranteedQoS.cpus": {"type": "integer", "minimum": 1},
    "guaranteedQoS.memory": {"type": "string", "pattern": "^[0-9]+[KMGT]i?$"},
    "containerSecurityContext": {"additionalProperties": True},
    "containerSecurityContext.runAsUser": {"type": "integer", "minimum": 1},
    "seccomp.mode": {"enum": ["auto", "runtimeDefault", "localhost", "unconfined", "unset"]},
    "podAffinityPreset": PRESET,
    "podAntiAffinityPreset": PRESET,
    "nodeAffinityPreset.type": PRESET,
    "podManagementPolicy": {"enum": ["Parallel", "OrderedReady"]},
    "updateStrategy": {"additionalProperties": True},
    "updateStrategy.type": {"enum": ["RollingUpdate", "OnDelete"]},
    "minReadySeconds": COUNT,
    "revisionHistoryLimit": COUNT,
    "service.type": {"enum": ["ClusterIP", "NodePort", "LoadBalancer"]},
    "service.ports.memcached": PORT,
    "service.nodePorts.memcached": {"anyOf": [PORT, {"const": ""}]},
    "service.externalTrafficPolicy": {"enum": ["Cluster", "Local"]},
    "service.sessionAffinity": {"enum": ["None", "ClientIP"]},
    "service.ipFamilyPolicy": {"enum": ["", "SingleStack", "PreferDualStack", "RequireDualStack"]},
    "autoscaling.minReplicas": {"type": "integer", "minimum": 1},
    "autoscaling.maxReplicas": {"type": "integer", "minimum": 1},
    "autoscaling.targetCPU": {"type": "integer", "minimum": 1},
    "autoscaling.targetMemory": {"type": ["integer", "string"]},
    "autoscaling.scaleDownWindowSeconds": {"type": "integer", "minimum": 0, "maximum": 3600},
    "autoscaling.scaleDownPeriodSeconds": {"type": "integer", "minimum": 1, "maximum": 1800},
    "pdb.minAvailable": PODS,
    "pdb.maxUnavailable": PODS,
    "mcrouter.enabled": {"enum": ["auto", True, False]},
    "mcrouter.discovery": {"enum": ["dns", "endpointslices", "static"]},
    "mcrouter.hashFunction": {"enum": ["Rendezvous", "WeightedRendezvous", "Ch3", "Crc32", "Ketama", "Jump", "Modula", "Maglev"]},
    "mcrouter.warmResize.windowMs": {"type": "integer", "minimum": 0, "maximum": 86400000},
    "mcrouter.warmResize.graceMs": {"type": "integer", "minimum": 1000, "maximum": 86400000},
    "mcrouter.replicas": COUNT,
    "mcrouter.threads": COUNT,
    "mcrouter.ioBackend": BACKEND,
    "mcrouter.extraArgs": STRINGS,
    "mcrouter.drainSeconds": {"type": "integer", "minimum": 0, "maximum": 3600},
    "mcrouter.resources": {"additionalProperties": True},
    "mcrouter.tolerations": {"type": ["array", "null"]},
    "mcrouter.runAsUser": {"type": "integer", "minimum": 1},
    "metrics.podAnnotations": {"additionalProperties": True},
    "metrics.dashboard.labels": {"additionalProperties": True},
}
# Values that are not in values.yaml, because their presence enables the proxy.
EXTRA = {
    "enabled": {"type": "boolean"},
    "memcached.enabled": {"type": "boolean"},
    "memcached.replicaCount": COUNT,
    "memcached.pdbMinAvailable": PODS,
    "memcached.AntiAffinity": PRESET,
    "memcached.memcached.maxItemMemory": COUNT,
    "memcached.memcached.extraArgs": STRINGS,
    "memcached.resources": {"type": "object"},
    "controller": {"enum": ["daemonset", "statefulset", "deployment"]},
    "daemonset.hostPort": {"type": "integer", "minimum": 0, "maximum": 65535},
    "statefulset.replicas": COUNT,
    "statefulset.antiAffinity": PRESET,
    "mcrouterCommandParams.port": PORT,
    "mcrouterCommandParams.configFile": {"type": "string"},
}
TYPES = {bool: "boolean", int: "integer", str: "string", list: "array", dict: "object"}


def rule(name):
    for pattern, found in RULES.items():
        if re.fullmatch(re.escape(pattern).replace(r"\*", "[^.]*"), name):
            return found
    return None


def comments(text):
    """(kind, name or title, text) of every comment that describes a value."""
    return [match.groups() for match in re.finditer(r"^## @(param|extra|section) (\S+)(?: (.*))?$", text, re.MULTILINE)]


def schema_of(value, name, texts):
    own = rule(name) if name else None
    schema = {"description": texts[name]} if name in texts else {}
    if isinstance(value, dict) and value:
        properties = {key: schema_of(inner, f"{name}.{key}".lstrip("."), texts) for key, inner in value.items()}
        return schema | {"type": "object", "properties": properties, "additionalProperties": False} | (own or {})
    if own:
        return schema | own
    if value is None:
        raise SystemExit(f"{name}: has no default, so RULES in generate.py must say what it may be")
    return schema | {"type": TYPES[type(value)]}


def schema(values, texts):
    made = schema_of(values, "", texts)
    for name, own in EXTRA.items():
        *folders, last = name.split(".")
        at = made
        for folder in folders:
            empty = {"type": ["object", "null"], "properties": {}, "additionalProperties": False}
            at = at["properties"].setdefault(folder, empty)
        at["properties"][last] = {"description": texts[name]} | own
    return {"$schema": "http://json-schema.org/draft-07/schema#", "title": "Values of corecached"} | made


def leaves(value, name=""):
    """Names of the values that need a comment."""
    if isinstance(value, dict) and value and not (rule(name) or {}).get("additionalProperties"):
        return [leaf for key, inner in value.items() for leaf in leaves(inner, f"{name}.{key}".lstrip("."))]
    return [name]


def look_up(values, name):
    for part in name.split("."):
        values = values[part]
    return values


def table(values, found):
    lines = []
    for kind, name, text in found:
        if kind == "section":
            lines += ["", f"### {' '.join(filter(None, (name, text)))}", "", "| value | is | default |", "| --- | --- | --- |"]
            continue
        default = "" if kind == "extra" else f"`{json.dumps(look_up(values, name))}`"
        lines.append(f"| `{name}` | {text.replace('|', chr(92) + '|')} | {default} |")
    return "\n".join(lines).strip() + "\n"


def main():
    text = (HERE / "values.yaml").read_text()
    values, found = yaml.safe_load(text), comments(text)
    texts = {name: what for kind, name, what in found if kind != "section"}
    named = {name for kind, name, _ in found if kind == "param"}
    told = {leaf for leaf in leaves(values)}
    untold = sorted(leaf for leaf in told if not any(leaf == name or leaf.startswith(name + ".") or name.startswith(leaf + ".") for name in named))
    if untold:
        sys.exit(f"values.yaml: no @param comment for {', '.join(untold)}")
    head, mark, _ = (HERE / "README.md").read_text().partition("<!-- made by generate.py -->\n")
    made = {
        "values.schema.json": json.dumps(schema(values, texts), indent=1, ensure_ascii=False) + "\n",
        "README.md": head + mark + "\n" + table(values, found),
    }
    stale = [name for name, content in made.items() if not (HERE / name).is_file() or (HERE / name).read_text() != content]
    if "--check" in sys.argv[1:]:
        if stale:
            sys.exit(f"out of date: {', '.join(stale)}; run deploy/chart/generate.py")
        return
    for name in stale:
        (HERE / name).write_text(made[name])
        print(f"wrote {name}")


if __name__ == "__main__":
    main()

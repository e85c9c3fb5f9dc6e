"""Properties that hold for all values."""

import re

import jsonschema
import kubernetes_validate
import pytest
import yaml

from support import CASES, CHART, HELMS, NEWEST, ROOT, helm, objects, own_containers, pods

VERSIONS = ("1.27", "1.31", "1.34", "1.37")
# Schemas of custom objects, as far as this chart writes them: kubernetes-validate knows built-in kinds only.
STRING, LABELS = {"type": "string", "minLength": 1}, {"type": "object", "additionalProperties": {"type": "string"}}


def closed(required, optional=None):
    properties = required | (optional or {})
    return {"type": "object", "properties": properties, "required": list(required), "additionalProperties": False}


SELECTOR = closed({"matchLabels": LABELS})
ENDPOINT = closed(
    {"port": STRING, "path": STRING, "interval": {"pattern": "^[0-9]+(ms|s|m)$"}},
    {"scrapeTimeout": {"pattern": "^[0-9]+(ms|s|m)$"}, "honorLabels": {"type": "boolean"}, "relabelings": {}, "metricRelabelings": {}},
)
IN = closed({"matchNames": {"type": "array", "items": STRING}})
RULE = closed({"alert": STRING, "expr": STRING, "labels": LABELS, "annotations": LABELS}, {"for": STRING})
CUSTOM = {
    ("monitoring.coreos.com/v1", "ServiceMonitor"): closed(
        {"selector": SELECTOR, "endpoints": {"type": "array", "items": ENDPOINT, "minItems": 1}},
        {"namespaceSelector": IN, "jobLabel": STRING},
    ),
    ("monitoring.coreos.com/v1", "PodMonitor"): closed(
        {"selector": SELECTOR, "podMetricsEndpoints": {"type": "array", "items": ENDPOINT, "minItems": 1}},
        {"namespaceSelector": IN},
    ),
    ("monitoring.googleapis.com/v1", "PodMonitoring"): closed(
        {"selector": SELECTOR, "endpoints": {"type": "array", "items": ENDPOINT, "minItems": 1}}
    ),
    ("monitoring.coreos.com/v1", "PrometheusRule"): closed(
        {"groups": {"type": "array", "items": closed({"name": STRING, "rules": {"type": "array", "items": RULE}})}}
    ),
}


@pytest.mark.parametrize("version", HELMS)
@pytest.mark.parametrize("case", CASES)
def test_lint_finds_nothing(case, version):
    done = helm("lint", "--strict", CHART, *CASES[case], version=version)
    assert done.returncode == 0 and "WARNING" not in done.stdout, done.stdout + done.stderr


@pytest.mark.parametrize("case", CASES)
def test_both_helms_render_the_same_objects(case):
    key = lambda o: (o["kind"], o["metadata"]["name"])
    old, new = (sorted(objects(*CASES[case], version=version), key=key) for version in HELMS)
    assert old == new


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("case", CASES)
def test_kubernetes_takes_every_object(case, version):
    found = objects(*CASES[case], "--kube-version", f"{version}.0")
    assert found
    for one in found:
        own = CUSTOM.get((one["apiVersion"], one["kind"]))
        if own:
            jsonschema.validate(one["spec"], own)
        else:
            kubernetes_validate.validate(one, version, strict=True)


@pytest.mark.parametrize("case", CASES)
def test_no_name_is_given_twice(case):
    names = [(o["kind"], o["metadata"]["name"]) for o in objects(*CASES[case])]
    assert len(names) == len(set(names))


@pytest.mark.parametrize("case", CASES)
def test_selectors_find_the_pods_they_are_meant_for(case):
    found = objects(*CASES[case])
    labels = [o["spec"]["template"]["metadata"]["labels"] for o in found if "template" in o.get("spec", {})]
    for one in found:
        if one["kind"] not in ("Service", "PodDisruptionBudget", "StatefulSet", "DaemonSet", "Deployment"):
            continue
        selector = one["spec"]["selector"]
        wanted = selector.get("matchLabels", selector).items()
        hits = [own for own in labels if wanted <= own.items()]
        assert len(hits) == 1, (one["kind"], one["metadata"]["name"])


@pytest.mark.parametrize("case", CASES)
def test_pods_are_locked_down(case):
    for one, spec in pods(objects(*CASES[case])):
        assert spec["automountServiceAccountToken"] is False and spec["enableServiceLinks"] is False
        for container in own_containers(spec):
            security = container["securityContext"]
            if container["name"] == "installer":
                # It writes to a folder of the node that root owns; test_values.py checks its privileges.
                security = security | {"runAsNonRoot": True, "runAsUser": spec["securityContext"].setdefault("runAsUser", 1)}
            assert security["runAsNonRoot"] and security["readOnlyRootFilesystem"], one["metadata"]["name"]
            assert security["allowPrivilegeEscalation"] is False and security["privileged"] is False
            assert security["capabilities"] == {"drop": ["ALL"]}
            assert security["runAsUser"] == spec["securityContext"]["runAsUser"] > 0
            assert "memory" in container["resources"]["limits"]


@pytest.mark.parametrize("case", CASES)
def test_cache_and_proxy_never_share_a_user(case):
    servers = [(o, s) for o, s in pods(objects(*CASES[case])) if o["kind"] != "Pod" and not o["metadata"]["name"].endswith("-seccomp")]
    users = {o["kind"] + o["metadata"]["name"]: s["securityContext"]["runAsUser"] for o, s in servers}
    assert len(set(users.values())) == len(users)


@pytest.mark.parametrize("case", CASES)
def test_pods_are_given_longer_to_end_than_they_drain(case):
    for one, spec in pods(objects(*CASES[case])):
        if one["kind"] == "Pod" or one["metadata"]["name"].endswith("-seccomp"):
            continue
        for container in own_containers(spec):
            command = container["lifecycle"]["preStop"]["exec"]["command"]
            assert command[:2] == ["/usr/local/bin/corecached", "drain"]
            waits = [int(word.split("=")[1]) for word in command if word.startswith("--wait-ms=")]
            assert all(wait < 1000 * spec["terminationGracePeriodSeconds"] for wait in waits)


def options(path):
    """Names of the options of a clap struct, long and short."""
    source = (ROOT / path).read_text()
    names = set()
    for attribute, field in re.findall(r"#\[arg\((.*?)\)\]\s+pub (\w+):", source, re.DOTALL):
        long = re.search(r'long\s*=\s*"([^"]+)"', attribute)
        if long or re.search(r"\blong\b", attribute):
            names.add("--" + (long.group(1) if long else field.replace("_", "-")))
        names |= {"-" + short for short in re.findall(r"short = '(.)'", attribute)}
    return names


OPTIONS = {
    "cache": options("server/cache/src/config/args.rs") | options("server/shard/src/operation.rs"),
    "mcrouter": options("server/proxy/src/args.rs") | options("server/shard/src/operation.rs"),
    "healthcheck": options("server/corecached/src/commands/healthcheck.rs"),
    "seccomp-profile": options("server/corecached/src/commands/seccomp.rs"),
    "drain": options("server/corecached/src/commands/drain.rs"),
}


@pytest.mark.parametrize("case", CASES)
def test_every_flag_is_one_the_binary_has(case):
    checked = 0
    for _, spec in pods(objects(*CASES[case])):
        for container in own_containers(spec):
            lines = [container["args"]]
            for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
                lines.append(container.get(probe, {}).get("exec", {}).get("command", [])[1:])
            lines.append(container.get("lifecycle", {}).get("preStop", {}).get("exec", {}).get("command", [])[1:])
            for line in lines:
                role = line[0] if line and line[0] in OPTIONS else "cache"
                for word in line:
                    if word.startswith("-"):
                        flag = word.split("=")[0] if word.startswith("--") else word[:2]
                        assert flag in OPTIONS[role], (role, word)
                        checked += 1
    assert checked


def test_the_options_read_from_the_source_are_those_that_are_there():
    assert {"--admin-listen", "--memory-limit", "-m", "-I", "--io-backend"} <= OPTIONS["cache"]
    assert {"--config-file", "-f", "--num-proxies", "--log-format"} <= OPTIONS["mcrouter"]
    assert OPTIONS["drain"] == {"--wait-ms", "-w"}
    plain = {"--timeout-ms", "-t", "--auth-file", "-Y", "--store", "-s"}
    secured = {"--enable-ssl", "-Z", "--pem-ca-path", "--ssl-server-name", "--pem-cert-path", "--pem-key-path"}
    assert OPTIONS["healthcheck"] == plain | secured


@pytest.mark.parametrize("case", CASES)
def test_a_new_version_of_the_chart_restarts_no_pod(case, tmp_path):
    import shutil

    copy = tmp_path / "chart"
    shutil.copytree(CHART, copy, ignore=shutil.ignore_patterns("tests"))
    meta = yaml.safe_load((copy / "Chart.yaml").read_text())
    (copy / "Chart.yaml").write_text(yaml.safe_dump(meta | {"version": "9.9.9"}))
    done = helm("template", "mycache", copy, *CASES[case], version=NEWEST)
    assert done.returncode == 0, done.stderr
    templates = lambda found: [o["spec"]["template"] for o in found if "template" in o.get("spec", {})]
    assert templates(o for o in yaml.safe_load_all(done.stdout) if o) == templates(objects(*CASES[case]))

"""The effects of single values, and the messages about invalid ones."""

import json
import os
import pathlib
import re
import shutil
import subprocess
import sys

import pytest
import yaml

from support import CASES, CHART, HELMS, POOL, PROXY, ROOT, helm, objects, own_containers, pair, pods, refused, text, the

CACHE, ROUTER = "mycache-memcached", "mycache-mcrouter"


def values(name):
    return CASES[name]


def args(one):
    return one["spec"]["template"]["spec"]["containers"][0]["args"]


# --- the tutorial

def test_the_tutorials_pool_is_three_ordered_pods_behind_a_headless_service():
    cache = the("StatefulSet", CACHE, *POOL)
    assert cache["spec"]["replicas"] == 3 and cache["spec"]["serviceName"] == CACHE
    service = the("Service", CACHE, *POOL)["spec"]
    assert service["clusterIP"] == "None" and [p["port"] for p in service["ports"]] == [11211]
    assert not [o for o in objects(*POOL) if o["kind"] == "DaemonSet"]


def test_the_tutorials_proxy_is_on_every_node_at_port_5000_and_found_by_its_label():
    proxy = the("DaemonSet", ROUTER, *PROXY)["spec"]["template"]
    assert proxy["metadata"]["labels"]["app"] == "mycache-mcrouter"
    ports = {p["name"]: p for p in proxy["spec"]["containers"][0]["ports"]}
    assert ports["mcrouter"] == {"name": "mcrouter", "containerPort": 5000, "hostPort": 5000}
    assert the("StatefulSet", CACHE, *PROXY)["spec"]["replicas"] == 3
    assert the("Service", ROUTER, *PROXY)["spec"]["clusterIP"] == "None"


def test_the_proxy_follows_the_caches_service_and_hashes_by_names():
    config = json.loads(the("ConfigMap", ROUTER, *PROXY)["data"]["config.json"])
    assert config == {
        "pools": {"A": {"servers": ["mycache-memcached.default.svc.cluster.local.:11211"], "resolve": True}},
        "route": {"type": "PoolRoute", "pool": "A", "hash": {"hash_func": "Rendezvous"}},
    }


def test_the_pool_resizes_warm_where_it_is_asked_to():
    config = json.loads(the("ConfigMap", ROUTER, *PROXY, "--set", "mcrouter.warmResize.windowMs=600000")["data"]["config.json"])
    assert config["pools"]["A"]["warm_resize"] == {"window_ms": 600000, "grace_ms": 10000}


@pytest.mark.parametrize("version", HELMS)
def test_the_notes_name_the_next_commands(version):
    done = helm("install", "mycache", CHART, "--dry-run=client", *PROXY, version=version)
    if "kubernetes cluster unreachable" in done.stderr.lower():
        pytest.skip("this helm asks a cluster even so")
    assert done.returncode == 0, done.stderr
    notes = done.stdout.partition("NOTES:")[2]
    assert 'kubectl get pods -l app=mycache-mcrouter -o jsonpath="{.items[0].status.podIP}"' in notes
    assert 'kubectl get service mycache-memcached -o jsonpath="{.spec.clusterIP}"' in notes
    assert "telnet mycache-memcached-0.mycache-memcached.default.svc.cluster.local 11211" in notes
    assert "fieldPath: spec.nodeName" in notes


# --- the cache

def test_memory_is_left_to_the_server_unless_said():
    assert not [a for a in args(the("StatefulSet", CACHE)) if "memory" in a]
    assert "--memory-limit=6000" in args(the("StatefulSet", CACHE, *values("guaranteed")))
    assert "--memory-limit=64" in args(the("StatefulSet", CACHE, *values("proxy-statefulset")))


def test_whole_cores_are_requested_as_they_are_limited():
    (container,) = the("StatefulSet", CACHE, *values("guaranteed"))["spec"]["template"]["spec"]["containers"]
    assert container["resources"]["limits"] == container["resources"]["requests"] == {"cpu": "4", "memory": "8Gi"}


@pytest.mark.parametrize("preset", ["nano", "micro", "small", "medium", "large", "xlarge", "2xlarge"])
def test_a_preset_limits_memory_to_what_it_requests_and_no_cores(preset):
    cache = the("StatefulSet", CACHE, "--set", f"resourcesPreset={preset}")
    resources = cache["spec"]["template"]["spec"]["containers"][0]["resources"]
    assert resources["limits"] == {"memory": resources["requests"]["memory"]}


def test_counts_of_pods_are_those_of_the_charts_before():
    count = lambda *a: the("StatefulSet", CACHE, *a)["spec"]["replicas"]
    assert count() == 1
    assert count("--set", "architecture=high-availability") == 3
    assert count("--set", "architecture=high-availability,replicaCount=1") == 1
    assert count("--set", "replicaCount=4") == 4
    assert count("--set", "memcached.replicaCount=0") == 0


def test_an_upgrade_does_not_undo_what_the_autoscaler_did():
    assert "replicas" not in the("StatefulSet", CACHE, *POOL, "--is-upgrade")["spec"]
    assert "replicas" not in the("StatefulSet", CACHE, *POOL, "--set", "autoscaling.renderReplicas=false")["spec"]


def test_the_autoscaler_goes_by_cpu_and_never_by_memory():
    scaler = the("HorizontalPodAutoscaler", CACHE, *POOL, "--set", "autoscaling.targetMemory=50")["spec"]
    assert (scaler["minReplicas"], scaler["maxReplicas"]) == (3, 6)
    assert [m["resource"]["name"] for m in scaler["metrics"]] == ["cpu"]
    assert scaler["behavior"]["scaleDown"]["policies"] == [{"type": "Pods", "value": 1, "periodSeconds": 300}]
    own = the("HorizontalPodAutoscaler", CACHE, *values("autoscaling"))["spec"]
    assert [m["type"] for m in own["metrics"]] == ["Pods"] and own["minReplicas"] == 4


def test_passwords_come_from_a_secret_and_never_stand_in_the_arguments():
    assert the("Secret", "mycache-memcached-users", *values("auth"))["stringData"] == {"users": 'web:p:"q\n'}
    for case, secret in (("auth", "mycache-memcached-users"), ("auth-existing", "mine")):
        spec = the("StatefulSet", CACHE, *values(case))["spec"]["template"]["spec"]
        assert "--auth-file=/etc/corecached/users" in spec["containers"][0]["args"]
        assert spec["volumes"][0]["secret"]["secretName"] == secret
        assert "--auth-file=/etc/corecached/users" in spec["containers"][0]["startupProbe"]["exec"]["command"]
        test = the("Pod", "mycache-memcached-test", *values(case))["spec"]
        assert "--auth-file=/etc/corecached/users" in test["containers"][0]["args"]
        assert test["volumes"][0]["secret"]["secretName"] == secret
    assert not [o for o in objects(*values("auth-existing")) if o["kind"] == "Secret"]


def test_a_single_pod_has_no_disruption_budget():
    assert not [o for o in objects() if o["kind"] == "PodDisruptionBudget"]
    assert the("PodDisruptionBudget", CACHE, *POOL)["spec"]["maxUnavailable"] == 1
    assert the("PodDisruptionBudget", CACHE, *values("proxy-statefulset"))["spec"]["minAvailable"] == 3


def test_caches_avoid_each_others_nodes_and_spread_over_zones():
    spec = the("StatefulSet", CACHE, *POOL)["spec"]["template"]["spec"]
    (term,) = spec["affinity"]["podAntiAffinity"]["preferredDuringSchedulingIgnoredDuringExecution"]
    assert term["podAffinityTerm"]["topologyKey"] == "kubernetes.io/hostname"
    assert spec["topologySpreadConstraints"][0]["topologyKey"] == "topology.kubernetes.io/zone"
    hard = the("StatefulSet", CACHE, *values("bitnami"))["spec"]["template"]["spec"]["affinity"]
    assert "requiredDuringSchedulingIgnoredDuringExecution" in hard["podAntiAffinity"]
    assert "requiredDuringSchedulingIgnoredDuringExecution" in hard["nodeAffinity"]


@pytest.mark.parametrize(
    ("mode", "profile"),
    [
        ("auto", {"type": "RuntimeDefault"}),
        ("runtimeDefault", {"type": "RuntimeDefault"}),
        ("localhost", {"type": "Localhost", "localhostProfile": "profiles/corecached-io-uring.json"}),
        ("unconfined", {"type": "Unconfined"}),
        ("unset", None),
    ],
)
def test_each_seccomp_mode_is_the_profile_it_says(mode, profile):
    for _, spec in pods(objects(*PROXY, "--set", f"seccomp.mode={mode}")):
        assert spec["securityContext"].get("seccompProfile") == profile


def test_only_those_allowed_reach_a_closed_cache():
    policy = the("NetworkPolicy", CACHE, *values("closed"))["spec"]
    cache_rule = policy["ingress"][0]
    assert cache_rule["ports"] == [{"port": 11211}]
    allowed = [peer["podSelector"]["matchLabels"] for peer in cache_rule["from"] if "namespaceSelector" not in peer]
    assert {"mycache-memcached-client": "true"} in allowed and {"app": "web"} in allowed
    assert any(labels.get("app") == ROUTER for labels in allowed)
    assert policy["egress"] == [{"ports": [{"port": 2}]}]
    assert the("NetworkPolicy", CACHE)["spec"]["egress"] == []


def test_a_value_may_have_templates_in_it():
    container = the("StatefulSet", CACHE, *values("bitnami"))["spec"]["template"]["spec"]["containers"][0]
    assert container["env"] == [{"name": "RELEASE", "value": "mycache"}]
    assert container["image"] == "registry.example/team/corecached:1.2.3"
    assert container["args"][-3:] == ["-o", "no_lru_crawler", "-R 200"]


def test_a_digest_goes_before_a_tag():
    container = the("StatefulSet", "pool", *values("ipv6-and-host-network"))["spec"]["template"]["spec"]["containers"][0]
    assert re.fullmatch(r"corecached@sha256:0{64}", container["image"])
    assert "--admin-listen=[::]:9150" in container["args"]


# --- the proxy

@pytest.mark.parametrize("asks", ["memcached.enabled=true", "controller=daemonset", "daemonset.hostPort=5000", "statefulset.replicas=1", "mcrouterCommandParams.port=5000", "mcrouter.enabled=true"])
def test_any_value_of_the_proxy_asks_for_it(asks):
    assert the("DaemonSet", ROUTER, "--set", asks)


def test_the_proxy_comes_as_each_kind_of_controller():
    stateful = the("StatefulSet", ROUTER, *values("proxy-statefulset"))["spec"]
    assert stateful["replicas"] == 2 and stateful["serviceName"] == ROUTER
    assert "--port=5001" in stateful["template"]["spec"]["containers"][0]["args"]
    deployment = the("Deployment", ROUTER, *values("proxy-deployment"))["spec"]
    assert deployment["replicas"] == 3 and "tolerations" not in deployment["template"]["spec"]
    for spec in (stateful, deployment):
        assert all("hostPort" not in port for port in spec["template"]["spec"]["containers"][0]["ports"])


def test_without_a_port_of_the_node_a_service_leads_to_the_nodes_own_proxy():
    arguments = values("proxy-without-host-port")
    assert "hostPort" not in json.dumps(the("DaemonSet", ROUTER, *arguments))
    assert the("Service", "mycache-mcrouter-local", *arguments)["spec"]["internalTrafficPolicy"] == "Local"


def test_discovery_by_endpointslices_lets_the_proxy_alone_read_those_of_its_namespace():
    arguments = (*values("proxy-endpointslices"), "--namespace", "caches")
    pool = json.loads(the("ConfigMap", ROUTER, *arguments)["data"]["config.json"])["pools"]["A"]
    server = "mycache-memcached.caches.svc.cluster.local.:11211"
    assert pool == {"servers": [server], "resolve": True, "endpoint_slices": "caches/mycache-memcached"}
    (rule,) = the("Role", ROUTER, *arguments)["rules"]
    assert rule == {"apiGroups": ["discovery.k8s.io"], "resources": ["endpointslices"], "verbs": ["list", "watch"]}
    binding = the("RoleBinding", ROUTER, *arguments)
    assert binding["roleRef"]["name"] == ROUTER
    assert binding["subjects"] == [{"kind": "ServiceAccount", "name": ROUTER, "namespace": "caches"}]
    accounts = {one["kind"]: spec["serviceAccountName"] for one, spec in pods(objects(*arguments)) if one["kind"] != "Pod"}
    assert accounts == {"DaemonSet": ROUTER, "StatefulSet": CACHE}
    (proxy,) = [spec for one, spec in pods(objects(*arguments)) if one["kind"] == "DaemonSet"]
    mounts = {mount["name"]: mount["mountPath"] for mount in own_containers(proxy)[0]["volumeMounts"]}
    assert mounts["service-account"] == "/var/run/secrets/kubernetes.io/serviceaccount"
    egress = json.dumps(the("NetworkPolicy", ROUTER, *arguments)["spec"]["egress"])
    assert "6443" in egress
    kinds = {one["kind"] for one in objects(*PROXY)}
    assert not kinds & {"Role", "RoleBinding"}, "off unless asked for"


def test_static_discovery_names_each_pod():
    config = json.loads(the("ConfigMap", ROUTER, *values("proxy-static"))["data"]["config.json"])
    assert config["pools"]["A"] == {
        "servers": [f"mycache-memcached-{n}.mycache-memcached.default.svc.cluster.local.:11211" for n in range(2)]
    }
    assert config["route"]["hash"] == {"hash_func": "Ch3"}


def test_a_proxy_alone_has_no_cache_beside_it():
    kinds = {o["kind"] for o in objects(*values("proxy-alone"))}
    assert "StatefulSet" not in kinds and "DaemonSet" in kinds


def test_a_file_of_the_chart_may_be_the_configuration(tmp_path):
    copy = tmp_path / "chart"
    shutil.copytree(CHART, copy, ignore=shutil.ignore_patterns("tests"))
    (copy / "own.json").write_text('{"route": "NullRoute"}')
    done = helm("template", "mycache", copy, "--set", "mcrouterCommandParams.configFile=own.json")
    (config,) = [o for o in yaml.safe_load_all(done.stdout) if o and o["kind"] == "ConfigMap"]
    assert config["data"]["config.json"] == '{"route": "NullRoute"}'


@pytest.mark.parametrize("case", [name for name in CASES if "mcrouter" in name or "proxy" in name or name in ("closed", "autoscaling", "watched")])
def test_the_binary_takes_the_configuration(case, tmp_path):
    binary = pathlib.Path(os.environ.get("CORECACHED", ROOT / "target/debug/corecached"))
    if not binary.exists():
        pytest.skip(f"{binary} is not built")
    config = tmp_path / "config.json"
    config.write_text(the("ConfigMap", ROUTER, *CASES[case])["data"]["config.json"])
    command = [binary, "check-config", "-f", config]
    if case == "proxy-tls":
        pair(tmp_path)
        command.append(f"--pem-ca-path={tmp_path / 'ca.crt'}")
    done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    assert done.returncode == 0, done.stderr


def test_probes_written_for_the_cache_are_not_the_proxys():
    arguments = (*PROXY, "--set", "customReadinessProbe.tcpSocket.port=memcached")
    probe = lambda kind, name: the(kind, name, *arguments)["spec"]["template"]["spec"]["containers"][0]["readinessProbe"]
    assert probe("StatefulSet", CACHE) == {"tcpSocket": {"port": "memcached"}}
    assert probe("DaemonSet", ROUTER)["httpGet"]["path"] == "/readyz"


@pytest.mark.parametrize(
    ("release", "names"),
    [
        ("memcached", {"memcached", "memcached-mcrouter"}),
        ("mcrouter", {"mcrouter-memcached", "mcrouter"}),
        ("mcrouter-memcached", {"mcrouter-memcached", "mcrouter-memcached-mcrouter"}),
    ],
)
def test_cache_and_proxy_have_names_of_their_own(release, names):
    found = objects(*PROXY, release=release)
    assert {o["metadata"]["name"] for o in found if o["kind"] in ("StatefulSet", "DaemonSet")} == names


# --- TLS

def secrets_of(spec):
    """Names and keys of the Secrets that are mounted into a pod, by volume."""
    return {
        volume["name"]: (volume["secret"]["secretName"], [item["key"] for item in volume["secret"].get("items", [])])
        for volume in spec.get("volumes", [])
        if "secret" in volume
    }


def pod_of(kind, name, *arguments):
    spec = the(kind, name, *arguments)["spec"]["template"]["spec"]
    mounts = {mount["name"]: mount["mountPath"] for mount in spec["containers"][0].get("volumeMounts", [])}
    return spec["containers"][0], mounts, secrets_of(spec)


def test_caches_and_their_probes_speak_tls():
    container, mounts, secrets = pod_of("StatefulSet", CACHE, *values("tls"))
    assert container["args"][-2:] == ["--enable-ssl", "--extended=ssl_chain_cert=/etc/corecached-tls/tls.crt,ssl_key=/etc/corecached-tls/tls.key,ssl_watch_certs"]
    assert mounts["tls"] == "/etc/corecached-tls" and secrets["tls"] == ("pair", ["tls.crt", "tls.key"])
    command = container["startupProbe"]["exec"]["command"]
    assert command[1:] == ["healthcheck", "127.0.0.1:11211", "--enable-ssl", "--auth-file=/etc/corecached/users"]


AUTHORITIES = "--pem-ca-path=/etc/corecached-tls/ca.crt"


def asked_by_helm_test(*arguments):
    """The arguments of the containers of `helm test`, and the Secrets mounted into its pod."""
    spec = the("Pod", "mycache-memcached-test", *arguments)["spec"]
    for container in spec["containers"]:
        mounted = {mount["name"] for mount in container.get("volumeMounts", [])}
        assert mounted == {name for name, word in (("users", "--auth-file"), ("tls", "--pem-ca-path")) if word in str(container["args"])}
    return {container["name"]: container["args"] for container in spec["containers"]}, secrets_of(spec)


@pytest.mark.parametrize(
    ("more", "cache", "words"),
    [
        ((), "cache-0", ["--enable-ssl"]),
        (("tls.caCertificate=true",), "cache-0", ["--enable-ssl", AUTHORITIES]),
        (("tls.caCertificate=true,tls.serverName=caches",), "cache-0", ["--enable-ssl", AUTHORITIES, "--ssl-server-name=caches"]),
        (("tls.caCertificate=true,architecture=standalone,service.clusterIP=10.0.0.1",), "cache", ["--enable-ssl", AUTHORITIES]),
    ],
)
def test_a_password_is_shown_to_caches_that_the_authorities_vouch_for_where_there_are_any(more, cache, words):
    asked, secrets = asked_by_helm_test(*values("tls"), *(("--set", *more) if more else ()))
    assert asked[cache][4:] == [*words, "--auth-file=/etc/corecached/users"]
    # The pod is addressed by the name that its certificate bears.
    pod = "" if cache == "cache" else "mycache-memcached-0."
    assert asked[cache][1] == f"{pod}mycache-memcached.default.svc.cluster.local:11211"
    authorities = {"tls": ("pair", ["ca.crt"])} if AUTHORITIES in words else {}
    assert secrets == {"users": ("mine", [])} | authorities


def test_a_proxy_reaches_caches_over_tls_and_is_asked_in_plain():
    container, mounts, secrets = pod_of("DaemonSet", ROUTER, *values("proxy-tls"))
    assert container["args"][-4:] == [
        "--pem-ca-path=/etc/mcrouter-tls/ca.crt",
        "--pem-cert-path=/etc/mcrouter-tls/tls.crt",
        "--pem-key-path=/etc/mcrouter-tls/tls.key",
        "--ssl-server-name=caches.internal",
    ]
    assert mounts["tls"] == "/etc/mcrouter-tls" and secrets["tls"] == ("shown", ["ca.crt", "tls.crt", "tls.key"])
    assert json.loads(the("ConfigMap", ROUTER, *values("proxy-tls"))["data"]["config.json"])["pools"]["A"]["use_ssl"] is True
    assert "--enable-ssl" not in container["startupProbe"]["exec"]["command"]
    asked, secrets = asked_by_helm_test(*values("proxy-tls"))
    assert {name for name, args in asked.items() if "--enable-ssl" in args} == {"cache-0", "cache-1"}
    # The name by which the proxy verifies them.
    assert asked["cache-0"][4:] == ["--enable-ssl", AUTHORITIES, "--ssl-server-name=caches.internal"]
    assert secrets == {"tls": ("shown", ["ca.crt"])}
    asked, secrets = asked_by_helm_test(*values("proxy-tls"), "--set", "tls.caCertificate=true,tls.serverName=mine")
    assert asked["cache-1"][-1] == "--ssl-server-name=mine" and secrets == {"tls": ("pair", ["ca.crt"])}
    # The proxy must not get the key of the caches: it needs their authority only.
    plain = (*PROXY, "--set", "tls.enabled=true,tls.existingSecret=pair")
    container, mounts, secrets = pod_of("DaemonSet", ROUTER, *plain)
    assert container["args"][-1] == "--pem-ca-path=/etc/mcrouter-tls/ca.crt" and secrets["tls"] == ("pair", ["ca.crt"])
    container, _, _ = pod_of("DaemonSet", ROUTER, *plain, "--set", "tls.serverName=caches")
    assert container["args"][-1] == "--ssl-server-name=caches"


def test_a_proxy_before_caches_of_others_may_reach_them_over_tls():
    given = (*values("proxy-alone"), "--set", "mcrouter.tls.enabled=true,mcrouter.tls.existingSecret=theirs")
    container, _, secrets = pod_of("DaemonSet", ROUTER, *given)
    assert "--pem-ca-path=/etc/mcrouter-tls/ca.crt" in container["args"] and secrets["tls"] == ("theirs", ["ca.crt"])


@pytest.mark.parametrize("case", [name for name in CASES if "tls" not in name])
def test_nothing_is_secured_unless_asked_for(case):
    assert not [word for word in ("tls", "ssl", "pem-") if word in text(*CASES[case])]


# --- refused

@pytest.mark.parametrize("version", HELMS)
@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("nonsense=1", "nonsense"),
        ("cache.memory=64", "memory"),
        ("memcached.replicas=3", "replicas"),
        ("architecture=big", "architecture"),
        ("replicaCount=-1", "replicaCount"),
        ("containerPorts.memcached=70000", "memcached"),
        ("cache.maxItemSize=1mb", "maxItemSize"),
        ("cache.ioBackend=kqueue", "ioBackend"),
        ("controller=job", "controller"),
        ("daemonset.hostPort=-1", "hostPort"),
        ("seccomp.mode=none", "mode"),
        ("image=corecached:1", "image"),
        ("image.digest=sha256:12", "digest"),
        ("containerSecurityContext.runAsUser=0", "runAsUser"),
        ("mcrouter.enabled=perhaps", "enabled"),
        ("mcrouter.hashFunction=Md5", "hashFunction"),
        ("mcrouter.warmResize.windowMs=-1", "windowMs"),
        ("mcrouter.enabled=true,mcrouter.warmResize.windowMs=5000", "mcrouter.warmResize.graceMs: must be less than"),
        ("guaranteedQoS.cpus=1.5", "cpus"),
        ("podManagementPolicy=Any", "podManagementPolicy"),
        # Combinations that the templates check, not the schema.
        ("auth.enabled=true", "auth.enabled: give auth.username and auth.password"),
        ("auth.enabled=true,auth.existingSecret=a,mcrouter.enabled=true", "auth.enabled: the proxy shows no password"),
        ("auth.existingPasswordSecret=a", "existingPasswordSecret"),
        ("seccomp.installer.enabled=true", "seccomp.installer.enabled: the profile would not be used"),
        ("tls.enabled=true", "tls.enabled: give tls.existingSecret"),
        ("tls.caCertificate=true", "tls: is not enabled"),
        ("tls.enabled=true,tls.existingSecret=a,tls.serverName=a", "tls.serverName: it is not verified"),
        ("mcrouter.enabled=true,mcrouter.tls.enabled=true", "mcrouter.tls.enabled: give mcrouter.tls.existingSecret"),
        ("mcrouter.enabled=true,mcrouter.tls.existingSecret=a", "mcrouter.tls: is not enabled"),
        ("tls.enabled=true,tls.existingSecret=a,mcrouter.tls.serverName=a", "mcrouter.tls: is not enabled"),
        ("persistence.enabled=true", "persistence.enabled: the cache keeps nothing"),
        ("autoscaling.enabled=true", "autoscaling.enabled: needs architecture=high-availability"),
        ("autoscaling.minReplicas=9", "autoscaling.minReplicas: must not be more"),
        ("drain.seconds=60", "terminationGracePeriodSeconds: must be more than drain.seconds"),
        ("mcrouter.drainSeconds=60", "mcrouter.terminationGracePeriodSeconds"),
        ("pdb.minAvailable=1,pdb.maxUnavailable=1", "pdb: give minAvailable or maxUnavailable"),
        ("mcrouter.runAsUser=65532", "mcrouter.runAsUser: must differ"),
        ("memcached.enabled=false", "memcached.enabled: is false, so say where"),
        ("mcrouter.enabled=false,controller=daemonset", "mcrouter.enabled: is false, but values of the proxy are given"),
        ("mcrouterCommandParams.configFile=none.json", "none.json is not in the chart's folder"),
        ("architecture=high-availability,service.type=NodePort", "service.type: must be ClusterIP"),
        ("architecture=high-availability,autoscaling.enabled=true,mcrouter.enabled=true,mcrouter.discovery=static", "mcrouter.discovery: must be dns"),
    ],
)
def test_a_wrong_value_is_named(given, said, version):
    assert said in refused("--set", given, version=version)


def test_an_old_kubernetes_is_refused():
    assert "1.24" in refused("--kube-version", "1.24.0")


# --- files generated from values.yaml

def test_schema_and_readme_are_up_to_date():
    done = subprocess.run([sys.executable, CHART / "generate.py", "--check"], capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 0, done.stderr


def test_the_package_holds_the_chart_and_none_of_its_tests(tmp_path):
    import tarfile

    done = helm("package", CHART, "--destination", tmp_path)
    assert done.returncode == 0, done.stderr
    (package,) = tmp_path.glob("*.tgz")
    names = {name.removeprefix("corecached/") for name in tarfile.open(package).getnames()}
    assert {"Chart.yaml", "values.schema.json", "README.md", "dashboards/corecached.json"} <= names
    assert not [name for name in names if name.startswith("tests/") or name.endswith(".py")]


# --- monitoring

METRICS = set()
for source in (ROOT / "server/admin/src/page").glob("*.rs"):
    METRICS |= set(re.findall(r'"((?:memcached|corecached|process)_[a-z_]+)"', source.read_text()))


def unknown(expression):
    named = set(re.findall(r"\b((?:memcached|corecached|process)_[a-z_]+)\b(?=\{|\[)", expression))
    assert named, expression
    return {name for name in named if name not in METRICS and name.removesuffix("_total") not in METRICS}


def test_alerts_and_dashboard_ask_for_metrics_that_are_there():
    rules = the("PrometheusRule", CACHE, *values("watched"))["spec"]["groups"][0]["rules"]
    dashboard = json.loads(the("ConfigMap", "mycache-memcached-dashboard", *values("watched"))["data"]["corecached.json"])
    expressions = [rule["expr"] for rule in rules]
    expressions += [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    assert len(expressions) > 15 and not set().union(*map(unknown, expressions))


def test_prometheus_takes_alerts_and_queries(tmp_path):
    promtool = shutil.which("promtool")
    if not promtool:
        pytest.skip("no promtool; it is in Debian's package prometheus")
    spec = the("PrometheusRule", CACHE, *values("watched"))["spec"]
    dashboard = json.loads((CHART / "dashboards/corecached.json").read_text())
    targets = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    fill = lambda text: text.replace("$__rate_interval", "1m").replace("$namespace", "a").replace("$pod", "b")
    queries = [{"record": f"query_{n}", "expr": fill(expr)} for n, expr in enumerate(targets)]
    rules = tmp_path / "rules.yaml"
    rules.write_text(yaml.safe_dump({"groups": spec["groups"] + [{"name": "dashboard", "rules": queries}]}))
    done = subprocess.run([promtool, "check", "rules", rules], capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 0 and f"{len(spec['groups'][0]['rules']) + len(queries)} rules found" in done.stdout, done.stdout + done.stderr


def test_helm_test_asks_each_pod_and_the_proxy():
    test = the("Pod", "mycache-memcached-test", *PROXY)
    assert test["metadata"]["annotations"]["helm.sh/hook"] == "test"
    asked = [container["args"][1] for container in test["spec"]["containers"]]
    assert all("--store" in container["args"] for container in test["spec"]["containers"])
    domain = "mycache-memcached.default.svc.cluster.local:11211"
    assert asked == [f"mycache-memcached-{n}.{domain}" for n in range(3)] + ["mycache-mcrouter:5000"]


# --- the seccomp profile

def test_the_installer_may_write_to_the_kubelets_folder_and_do_nothing_else():
    spec = the("DaemonSet", "mycache-memcached-seccomp", *values("seccomp-installer"))["spec"]["template"]["spec"]
    (container,) = spec["containers"]
    assert container["args"] == ["seccomp-profile", "--install=/node/profiles/corecached-io-uring.json", "--stay"]
    assert spec["volumes"] == [{"name": "seccomp", "hostPath": {"path": "/var/lib/kubelet/seccomp", "type": "DirectoryOrCreate"}}]
    security = container["securityContext"]
    assert security["runAsUser"] == 0 and security["capabilities"] == {"drop": ["ALL"]} and not security["privileged"]
    assert not security["allowPrivilegeEscalation"] and security["readOnlyRootFilesystem"]
    assert spec["securityContext"] == {"seccompProfile": {"type": "RuntimeDefault"}} and not spec.get("hostPID")
    assert not [o for o in objects(*POOL, "--set", "seccomp.mode=localhost") if o["metadata"]["name"].endswith("-seccomp")]


def test_the_profile_allows_io_uring_and_nothing_that_reaches_out_of_the_container():
    profile = json.loads((CHART / "seccomp/corecached-io-uring.json").read_text())
    allowed = {name for rule in profile["syscalls"] if rule["action"] == "SCMP_ACT_ALLOW" for name in rule["names"]}
    assert profile["defaultAction"] == "SCMP_ACT_ERRNO"
    assert {"io_uring_setup", "io_uring_enter", "io_uring_register"} <= allowed
    assert not allowed & {"mount", "umount2", "ptrace", "bpf", "setns", "unshare", "keyctl", "init_module", "kexec_load", "perf_event_open", "process_vm_writev", "pivot_root"}

"""Findings of checkov in the manifests, apart from those that are intended."""

import json
import subprocess

import pytest

from support import CASES, TOOLS, text

CHECKOV = TOOLS / "checkov/bin/checkov"
SCANNED = ("tutorial-pool", "tutorial-proxy", "auth", "proxy-deployment", "seccomp-installer", "guaranteed")
# Why each finding is intended, by check and by the end of the object's name ("": any object).
ALLOWED = {
    ("CKV_K8S_11", ""): "no CPU limit: it would throttle a cache during requests; guaranteedQoS sets one",
    ("CKV_K8S_43", ""): "only the user who pushes the image knows its digest: image.digest",
    ("CKV_K8S_15", ""): "a tag is one version of the image; IfNotPresent starts pods without a registry",
    ("CKV_K8S_26", "-mcrouter"): "applications find the proxy of their node by a port of the node; daemonset.hostPort=0 removes it",
    ("CKV_K8S_31", "-memcached"): "seccomp.mode=localhost: the check accepts only the default profile of the runtime",
    ("CKV_K8S_31", "-mcrouter"): "as above",
    ("CKV_K8S_31", "-test"): "as above",
    ("CKV2_K8S_6", "-test"): "runs for seconds and serves nothing; the policies of the caches allow it as a client",
    ("CKV_K8S_8", "-seccomp"): "copies a file and waits; there is nothing to probe",
    ("CKV_K8S_9", "-seccomp"): "as above",
    ("CKV_K8S_23", "-seccomp"): "root owns the kubelet's folder",
    ("CKV_K8S_40", "-seccomp"): "as above",
    ("CKV_K8S_8", "-test"): "runs to its end",
    ("CKV_K8S_9", "-test"): "as above",
}


def is_allowed(check, name):
    return any(check == allowed and name.endswith(end) for allowed, end in ALLOWED)


def test_checkov_finds_only_what_is_meant(tmp_path):
    if not CHECKOV.exists():
        pytest.skip(f"{CHECKOV} is not installed; .ci/chart does it")
    for case in SCANNED:
        (tmp_path / f"{case}.yaml").write_text(text(*CASES[case], "--namespace", "caches"))
    command = [CHECKOV, "--directory", tmp_path, "--framework", "kubernetes", "--skip-download", "--output", "json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    report = json.loads(done.stdout)
    assert report["summary"]["passed"] > 500 and not report["summary"]["parsing_errors"], report["summary"]
    found = {(one["check_id"], one["resource"].rpartition(".")[2], one["check_name"]) for one in report["results"]["failed_checks"]}
    unmeant = sorted(one for one in found if not is_allowed(*one[:2]))
    assert not unmeant, "\n".join(map(str, unmeant))
    unused = [key for key in ALLOWED if not any(check == key[0] and name.endswith(key[1]) for check, name, _ in found)]
    assert not unused, "these are found no more: take them off the list"

"""The chart, rendered by real helm and parsed."""

import functools
import os
import pathlib
import shutil
import subprocess

import pytest
import yaml

CHART = pathlib.Path(__file__).resolve().parents[1]
ROOT = CHART.parents[1]
TOOLS = pathlib.Path(os.environ.get("CHART_TOOLS", ROOT / "target/chart"))
HELMS = {version: TOOLS / f"helm-{version}" for version in ("3.17", "4.3")}
NEWEST = "4.3"
VALUES = sorted((CHART / "tests/values").glob("*.yaml"))
# The arguments that Google's tutorial uses.
POOL = ("--set", "architecture=high-availability", "--set", "autoscaling.enabled=true")
PROXY = ("--set", "memcached.replicaCount=3")
# All sets of arguments that the general tests use, by name.
CASES = {"tutorial-pool": POOL, "tutorial-proxy": PROXY} | {path.stem: ("-f", str(path)) for path in VALUES}


def helm(*arguments, version=NEWEST):
    return subprocess.run([HELMS[version], *arguments], capture_output=True, text=True, timeout=60, check=False)


@functools.cache
def text(*arguments, version=NEWEST, release="mycache"):
    done = helm("template", release, CHART, *arguments, version=version)
    assert done.returncode == 0, done.stderr
    return done.stdout


def objects(*arguments, **how):
    return [found for found in yaml.safe_load_all(text(*arguments, **how)) if found]


def the(kind, name, *arguments, **how):
    """The one object of that kind and name."""
    (found,) = [o for o in objects(*arguments, **how) if o["kind"] == kind and o["metadata"]["name"] == name]
    return found


def refused(*arguments, version=NEWEST):
    """The message of helm about invalid values."""
    done = helm("template", "mycache", CHART, *arguments, version=version)
    assert done.returncode != 0, "these values are taken"
    return done.stderr


def pods(found):
    """(object, pod spec) of every pod and controller."""
    for one in found:
        if one["kind"] == "Pod":
            yield one, one["spec"]
        elif one["kind"] in ("StatefulSet", "DaemonSet", "Deployment"):
            yield one, one["spec"]["template"]["spec"]


def own_containers(spec):
    return [c for c in spec["containers"] if "corecached" in c["image"]]


def pair(folder):
    """Writes a self-signed certificate for 127.0.0.1 and its key, with the file names of a Secret."""
    if not shutil.which("openssl"):
        pytest.skip("no openssl to make a certificate with")
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-subj", "/CN=test"]
    command += ["-addext", "subjectAltName=IP:127.0.0.1", "-addext", "basicConstraints=critical,CA:FALSE"]
    subprocess.run([*command, "-keyout", folder / "tls.key", "-out", folder / "tls.crt"], capture_output=True, timeout=30, check=True)
    (folder / "ca.crt").write_bytes((folder / "tls.crt").read_bytes())

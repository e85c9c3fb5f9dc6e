"""Runs the binary on this machine with the rendered arguments, probes and drain command."""

import os
import pathlib
import socket
import subprocess
import time
import urllib.error
import urllib.request

import pytest

from support import PROXY, ROOT, pair, the

BINARY = pathlib.Path(os.environ.get("CORECACHED", ROOT / "target/debug/corecached"))
POD = "mycache-memcached-0.mycache-memcached.default.svc.cluster.local."


def free_ports(count):
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


def run(command):
    assert command[0] == "/usr/local/bin/corecached"
    return subprocess.run([BINARY, *command[1:]], capture_output=True, timeout=30, check=False).returncode


def until(what):
    end = time.monotonic() + 20
    while not what():
        assert time.monotonic() < end, "not within 20 s"
        time.sleep(0.05)


def status(port, probe):
    try:
        return urllib.request.urlopen(f"http://127.0.0.1:{port}{probe['httpGet']['path']}", timeout=5).status
    except urllib.error.HTTPError as error:
        return error.code


@pytest.mark.parametrize("tls", [False, True])
def test_cache_and_proxy_start_answer_and_drain_as_rendered(tmp_path, tls):
    if not BINARY.exists():
        pytest.skip(f"{BINARY} is not built")
    cache_port, proxy_port, cache_admin, proxy_admin = free_ports(4)
    common = (
        *PROXY,
        "--set", f"containerPorts.memcached={cache_port},mcrouterCommandParams.port={proxy_port}",
        "--set", "metrics.listenAddress=127.0.0.1,extraArgs={--listen=127.0.0.1},mcrouter.extraArgs={--listen-addresses=127.0.0.1}",
        "--set", "mcrouter.discovery=static,memcached.replicaCount=1,drain.seconds=1",
        *(("--set", "tls.enabled=true,tls.existingSecret=pair") if tls else ()),
    )  # fmt: skip
    at = lambda admin: (*common, "--set", f"containerPorts.admin={admin}")
    container = lambda kind, name, admin: the(kind, name, *at(admin))["spec"]["template"]["spec"]["containers"][0]
    cache = container("StatefulSet", "mycache-memcached", cache_admin)
    proxy = container("DaemonSet", "mycache-mcrouter", proxy_admin)
    config = tmp_path / "config.json"
    config.write_text(the("ConfigMap", "mycache-mcrouter", *common)["data"]["config.json"].replace(POD, "127.0.0.1"))
    if tls:
        pair(tmp_path)
    here = {"/etc/mcrouter/config.json": config, "/etc/corecached-tls": tmp_path, "/etc/mcrouter-tls": tmp_path}
    lines = [cache["args"], proxy["args"]]
    for there, path in here.items():
        lines = [[word.replace(there, str(path)) for word in line] for line in lines]
    running = []
    try:
        running += [subprocess.Popen([BINARY, *line], stderr=subprocess.DEVNULL) for line in lines]
        for one, admin in ((cache, cache_admin), (proxy, proxy_admin)):
            until(lambda: run(one["startupProbe"]["exec"]["command"]) == 0)
            assert status(admin, one["readinessProbe"]) == status(admin, one["livenessProbe"]) == 200
        with socket.create_connection(("127.0.0.1", proxy_port), timeout=10) as client, client.makefile("rwb") as stream:
            stream.write(b"set anotherkey 0 0 15\r\nMcrouter is fun\r\nget anotherkey\r\n")
            stream.flush()
            said = [stream.readline() for _ in range(4)]
        assert said == [b"STORED\r\n", b"VALUE anotherkey 0 15\r\n", b"Mcrouter is fun\r\n", b"END\r\n"]
        # `helm test` against the cache: first with the certificate that verifies it, then with another one.
        (asked,) = [c["args"] for c in the("Pod", "mycache-memcached-test", *common)["spec"]["containers"] if c["name"] == "cache-0"]
        asked = [word.replace(POD.rstrip("."), "127.0.0.1").replace("/etc/corecached-tls", str(tmp_path)) for word in asked]
        assert run(["/usr/local/bin/corecached", *asked]) == 0
        if tls:
            pair(tmp_path)
            assert run(["/usr/local/bin/corecached", *asked]) == 1
        assert run(cache["lifecycle"]["preStop"]["exec"]["command"]) == 0
        assert status(cache_admin, cache["readinessProbe"]) == 503
        assert status(cache_admin, cache["livenessProbe"]) == 200
        for one in running:
            one.terminate()
        assert [one.wait(20) for one in running] == [0, 0]
    finally:
        for one in running:
            one.kill()
            one.wait()

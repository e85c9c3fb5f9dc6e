"""Clients that are programs, and the test suites that clients bring."""

import os
import pathlib
import re
import shutil
import subprocess
import sys

import pytest

TIMEOUT_S = 120


def run(command, **more):
    """What `command` prints; it must succeed."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S, **more)
    assert done.returncode == 0, f"{command} ended with {done.returncode}:\n{done.stdout}\n{done.stderr}"
    return done.stdout + done.stderr


def test_memccapable(server):
    command = ["memccapable", "-a", "-h", server.host, "-p", str(server.port)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S)
    outcomes = re.findall(r"(ascii [a-z]+(?: noreply)?) +(\[pass\])?", done.stdout)
    failed = [name for name, passed in outcomes if not passed]
    # They insist that a delete with a third word is an error, as it was before memcached 1.6.19.
    assert len(outcomes) == 27 and failed == ["ascii delete", "ascii delete noreply"], done.stdout


def test_memccapable_in_binary(either):
    output = run(["memccapable", "-b", "-h", either.host, "-p", str(either.port)])
    assert output.count("[pass]") == 27 and "FAIL" not in output, output


def test_memcping_and_memcstat(server):
    run(["memcping", f"--servers={server.address}"])
    assert "version: 1.6.45" in run(["memcstat", f"--servers={server.address}"])


def suite_of_pymemcache(server, tools, selected, *arguments, **more):
    """How many tests of it passed; none may fail."""
    command = [
        sys.executable, "-m", "pytest", "-q", "-o", "addopts=", "-m", "integration",
        "pymemcache/test/test_integration.py", "--server", server.host, "--port", str(server.port),
        "-k", selected, *arguments,
    ]  # fmt: skip
    output = run(command, cwd=tools / "pymemcache", **more)
    return int(re.search(r"(\d+) passed", output).group(1))


def test_suite_of_pymemcache(server, tools):
    # It has a server of its own for TLS, which is another matter.
    passed = suite_of_pymemcache(server, tools, "not tls")
    print(f"pymemcache's own suite: {passed} passed")
    assert passed >= 100


def test_suite_of_pymemcache_through_the_proxy(proxy, tools):
    # test_misc asks for `stats cachedump`, which a proxy refuses, as mcrouter does.
    passed = suite_of_pymemcache(proxy, tools, "not tls and not test_misc")
    print(f"pymemcache's own suite, through the proxy: {passed} passed")
    assert passed >= 94


def test_suite_of_pymemcache_over_tls(tls_server, tools):
    environment = dict(os.environ, TLS_AUTHORITY=tls_server.authority, PYTHONPATH=str(pathlib.Path(__file__).parent))
    passed = suite_of_pymemcache(tls_server, tools, "not tls", "-p", "over_tls", env=environment)
    print(f"pymemcache's own suite, over TLS: {passed} passed")
    assert passed >= 100


# A memcached of the suite that is a proxy in front of one.
PROXY = """#!/bin/sh
while [ $# -gt 0 ]; do
    case $1 in
        -l) address=$2 ;;
        -p) port=$2 ;;
        -s) socket=$2 ;;
    esac
    shift 2
done
cache={folder}/cache.$$
{corecached} -s "$cache" {how} &
started=$!
trap 'kill $started; wait' TERM
until [ -S "$cache" ]; do sleep 0.05; done
config='{{"pools": {{"A": {{"servers": ["unix:'$cache'"]}}}}, "route": "PoolRoute|A"}}'
{corecached} proxy --num-proxies={shards} --io-backend={backend} --enable-flush-cmd --config-str="$config" \\
    ${{socket:+--unix-domain-sock=$socket}} ${{port:+-p $port --listen-addresses=$address}} &
started="$started $!"
wait
"""


@pytest.mark.parametrize("served_by", ["cache", "proxy"])
def test_suite_of_python_binary_memcached(server, served_by, tools, tmp_path):
    shards, backend = server.started_with
    suite = tmp_path / "suite"
    shutil.copytree(tools / "python-binary-memcached" / "test", suite)
    shutil.copy(pathlib.Path(__file__).parent / "suite_of_bmemcached.py", suite / "conftest.py")
    unix = str(tmp_path / "socket")
    for file in suite.glob("*.py"):
        file.write_text(file.read_text().replace("/tmp/memcached.sock", unix))
    # It starts some servers itself, and not as root.
    memcached = tmp_path / "memcached"
    how = f"-t {shards} --io-backend={backend}" + (" -u root" if os.geteuid() == 0 else "")
    corecached = os.environ["CORECACHED"]
    if served_by == "proxy":
        memcached.write_text(
            PROXY.format(folder=tmp_path, corecached=corecached, how=how, shards=shards, backend=backend)
        )
    else:
        memcached.write_text(f'#!/bin/sh\nexec "{corecached}" {how} "$@"\n')
    memcached.chmod(0o755)
    environment = dict(
        os.environ,
        PATH=f"{tmp_path}:{os.environ['PATH']}",
        SUITE_SOCKET=unix,
        MEMCACHED_HOST="127.0.0.1",
    )
    # Its ports are fixed: a network of its own.
    alone = ["unshare", "--net"] if os.geteuid() == 0 else ["unshare", "--net", "--map-root-user"]
    # The proxies here ask for no password and speak no TLS, and their stats have no pid.
    selected = ["-k", "not sasl and not auth and not TLS and not testStats"] if served_by == "proxy" else []
    command = [*alone, sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *selected, str(suite)]
    output = run(command, env=environment, cwd=tmp_path)
    passed = int(re.search(r"(\d+) passed", output).group(1))
    print(f"python-binary-memcached's own suite: {passed} passed")
    assert passed >= (200 if served_by == "proxy" else 250) and "skipped" not in output, output


def test_go(server, tools):
    assert run([tools / "gomemcache", server.address]).endswith("ok\n")


RUBY = str(pathlib.Path(__file__).parent / "ruby" / "client.rb")


def test_ruby(either):
    assert run(["ruby", RUBY, either.address]).endswith("ok\n")


def test_ruby_over_tls(tls_server):
    assert run(["ruby", RUBY, tls_server.address, tls_server.authority]).endswith("ok\n")


def test_node(server, tools):
    assert run(["node", "client.js", server.address], cwd=tools / "node").endswith("ok\n")


def test_node_in_binary(either, tools):
    assert run(["node", "memjs.js", either.address], cwd=tools / "node").endswith("ok\n")

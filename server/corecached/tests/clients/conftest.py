"""A server for every pair of shards and backend, started from the binary that CORECACHED names."""

import json
import os
import pathlib
import signal
import subprocess
import time

import pytest

SERVERS = [(shards, backend) for shards in (1, 2) for backend in ("io_uring", "epoll")]
DEADLINE_S = 30


class Server:
    """A server on a free port of the loopback interface."""

    def __init__(self, folder, arguments):
        ports = folder / "ports"
        arguments = [os.environ["CORECACHED"], *arguments]
        environment = dict(os.environ, MEMCACHED_PORT_FILENAME=str(ports))
        self.process = subprocess.Popen(arguments, env=environment)
        deadline = time.monotonic() + DEADLINE_S
        while not ports.exists():
            assert self.process.poll() is None, f"ended with {self.process.returncode}: {arguments}"
            assert time.monotonic() < deadline, f"not serving: {arguments}"
            time.sleep(0.01)
        self.host = "127.0.0.1"
        self.port = int(ports.read_text().splitlines()[0].split()[-1])
        self.address = f"{self.host}:{self.port}"

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        assert self.process.wait(DEADLINE_S) == 0


@pytest.fixture(scope="session", params=SERVERS, ids=lambda pair: f"{pair[0]}-{pair[1]}")
def server(request, tmp_path_factory):
    shards, backend = request.param
    arguments = ["-l", "127.0.0.1", "-p", "-1", "-t", str(shards), f"--io-backend={backend}"]
    running = Server(tmp_path_factory.mktemp("server"), arguments)
    running.started_with = request.param
    yield running
    running.stop()


@pytest.fixture(scope="session")
def certificates(tmp_path_factory):
    """A folder with a certificate for localhost, cert.pem, which is its own authority, and its key, key.pem."""
    folder = tmp_path_factory.mktemp("certificates")
    command = [
        "openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
        "-keyout", folder / "key.pem", "-out", folder / "cert.pem", "-days", "2", "-subj", "/CN=localhost",
        "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1",
    ]  # fmt: skip
    subprocess.run(command, check=True, capture_output=True)
    return folder


@pytest.fixture(scope="session", params=SERVERS, ids=lambda pair: f"{pair[0]}-{pair[1]}")
def tls_server(request, certificates, tmp_path_factory):
    """A server that speaks TLS alone; what clients trust is in `authority`."""
    shards, backend = request.param
    arguments = [
        "-l", "127.0.0.1", "-p", "-1", "-t", str(shards), f"--io-backend={backend}",
        "-Z", "-o", f"ssl_chain_cert={certificates}/cert.pem,ssl_key={certificates}/key.pem",
    ]  # fmt: skip
    running = Server(tmp_path_factory.mktemp("tls"), arguments)
    running.authority = str(certificates / "cert.pem")
    yield running
    running.stop()


@pytest.fixture(scope="session")
def proxy(server, tmp_path_factory):
    """A proxy in front of the server, of as many shards and the same backend."""
    shards, backend = server.started_with
    config = {"pools": {"A": {"servers": [server.address]}}, "route": "PoolRoute|A"}
    arguments = [
        "proxy", "-p", "0", "--listen-addresses=127.0.0.1", f"--num-proxies={shards}", f"--io-backend={backend}",
        f"--config-str={json.dumps(config)}", "--enable-flush-cmd",
        "--disable-miss-on-get-errors", "--disable-miss-on-arith-errors",
    ]  # fmt: skip
    running = Server(tmp_path_factory.mktemp("proxy"), arguments)
    yield running
    running.stop()


@pytest.fixture(scope="session", params=["cache", "proxy"])
def either(request, server, proxy):
    """A cache, or a proxy in front of one: to clients of the binary protocol they are alike."""
    return server if request.param == "cache" else proxy


@pytest.fixture(scope="session")
def tools():
    """The folder in which .ci/clients put what is not written in Python."""
    return pathlib.Path(os.environ["CLIENTS_FOLDER"])

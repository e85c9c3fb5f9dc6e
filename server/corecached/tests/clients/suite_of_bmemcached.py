"""The servers that python-binary-memcached's own suite wants, which it expects on fixed ports: to be run in a network
namespace of its own. `memcached` in PATH is what is tested."""

import os
import pathlib
import socket
import subprocess
import sys
import time

import pytest

# Ports and names that the suite has written into it.
PORTS, IPV6_PORT, SASL_PORT = (11211, 5000), 11214, 11215
USER, PASSWORD = "user", "password"
# In place of /tmp/memcached.sock.
SOCKET = os.environ["SUITE_SOCKET"]
DEADLINE_S = 30

sys.path.insert(0, str(pathlib.Path(__file__).parent))


def serve(address, *arguments, **more):
    """A server; comes back when it answers at `address`."""
    server = subprocess.Popen(["memcached", *arguments], **more)
    family = socket.AF_UNIX if isinstance(address, str) else socket.AF_INET6 if ":" in address[0] else socket.AF_INET
    end = time.monotonic() + DEADLINE_S
    while True:
        assert server.poll() is None, f"memcached {arguments} ended"
        try:
            with socket.socket(family) as probe:
                probe.connect(address)
                return server
        except OSError:
            assert time.monotonic() < end, f"nobody answers at {address}"
            time.sleep(0.01)


def end(server):
    server.terminate()
    server.wait()


@pytest.fixture(scope="session", autouse=True)
def memcached():
    os.environ["MEMCACHED_HOST"] = "127.0.0.1"
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    servers = [serve(("127.0.0.1", port), "-l", "127.0.0.1", "-p", str(port)) for port in PORTS]
    servers.append(serve(SOCKET, "-s", SOCKET))
    yield
    for server in servers:
        end(server)


@pytest.fixture(scope="session")
def memcached_ipv6():
    server = serve(("::1", IPV6_PORT), "-l", "::1", "-p", str(IPV6_PORT))
    yield IPV6_PORT
    end(server)


@pytest.fixture(scope="session")
def memcached_sasl(tmp_path_factory):
    users = tmp_path_factory.mktemp("sasl") / "users"
    users.write_text(f"{USER}:{PASSWORD}\n")
    environment = dict(os.environ, MEMCACHED_SASL_PWDB=str(users))
    server = serve(("127.0.0.1", SASL_PORT), "-l", "127.0.0.1", "-p", str(SASL_PORT), "-S", env=environment)
    yield SASL_PORT, USER, PASSWORD
    end(server)

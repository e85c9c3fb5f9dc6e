"""Clients over TLS, of both versions."""

import socket
import ssl

import pytest

VERSIONS = [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3]
LARGE = bytes(range(256)) * 4000


@pytest.fixture(params=VERSIONS, ids=lambda version: version.name)
def context(request, tls_server):
    made = ssl.create_default_context(cafile=tls_server.authority)
    made.minimum_version = made.maximum_version = request.param
    return made


def test_pymemcache(tls_server, context):
    import pymemcache

    client = pymemcache.Client((tls_server.host, tls_server.port), tls_context=context, default_noreply=False)
    client.flush_all()
    many = {f"many{i}": b"%d" % i * (i + 1) for i in range(200)}
    assert client.set_many(many) == [] and client.get_many(list(many)) == many
    assert client.set("big", LARGE) and client.get("big") == LARGE
    with pytest.raises(pymemcache.exceptions.MemcacheServerError):
        client.set("bigger", b"x" * (1 << 20))
    value, unique = client.gets("many1")
    assert client.cas("many1", b"new", unique) is True and client.cas("many1", b"newer", unique) is False
    for i in range(1000):
        client.set("n", b"%d" % i, noreply=True)
    assert client.get("n") == b"999" and client.incr("n", 1) == 1000
    assert client.stats()[b"curr_items"] == 202
    client.quit()


def test_python_binary_memcached(tls_server, context):
    import bmemcached

    client = bmemcached.Client((tls_server.address,), tls_context=context)
    many = {f"many{i}": f"value {i}" for i in range(300)}
    assert client.set_multi(many) == [] and client.get_multi(list(many) + ["missing"]) == many
    assert client.set("big", LARGE, compress_level=0) and client.get("big") == LARGE
    assert client.delete("big") and client.get("big") is None
    client.disconnect_all()


def test_the_standard_library_resumes_its_session(tls_server, context):
    address = (tls_server.host, tls_server.port)
    session = None
    for i in range(8):
        with context.wrap_socket(socket.create_connection(address), server_hostname="localhost", session=session) as it:
            it.sendall(b"mn\r\n")
            assert it.recv(100) == b"MN\r\n"
            assert it.session_reused == (i > 0)
            session = it.session


def test_a_stranger_is_not_trusted(tls_server):
    import pymemcache

    client = pymemcache.Client((tls_server.host, tls_server.port), tls_context=ssl.create_default_context())
    with pytest.raises(ssl.SSLError):
        client.get("k")

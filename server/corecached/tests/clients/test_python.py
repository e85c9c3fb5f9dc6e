"""Python clients. Each goes once through what it offers."""

import importlib.util
import pathlib
import time

import pytest


@pytest.fixture(autouse=True)
def flushed(server):
    import pymemcache

    pymemcache.Client((server.host, server.port)).flush_all(noreply=False)


def expires(get):
    """`get` yields nothing within the deadline."""
    deadline = time.monotonic() + 10
    while get() is not None:
        assert time.monotonic() < deadline, "not expired"
        time.sleep(0.02)


def test_pymemcache(server):
    import pymemcache

    client = pymemcache.Client((server.host, server.port), default_noreply=False)
    assert client.set("k", b"v", flags=7)
    assert client.get("k") == b"v"
    assert client.get("missing") is None
    assert client.add("k", b"x") is False
    assert client.replace("k", b"w") is True
    assert client.append("k", b"2") and client.prepend("k", b"0")
    value, unique = client.gets("k")
    assert value == b"0w2"
    assert client.cas("k", b"new", unique) is True
    assert client.cas("k", b"newer", unique) is False
    assert client.cas("missing", b"x", unique) is None
    assert client.set("n", b"10") and client.incr("n", 5) == 15 and client.decr("n", 20) == 0
    assert client.incr("missing", 1) is None
    many = {f"many{i}": b"%d" % i * (i + 1) for i in range(200)}
    assert client.set_many(many) == []
    assert client.get_many(list(many)) == many
    assert client.delete("k") is True and client.delete("k") is False
    assert client.touch("n", 1) is True
    expires(lambda: client.get("n"))
    big = bytes(range(256)) * 4000
    assert client.set("big", big) and client.get("big") == big
    with pytest.raises(pymemcache.exceptions.MemcacheServerError):
        client.set("bigger", b"x" * (1 << 20))
    assert client.get("big") == big
    stats = client.stats()
    assert stats[b"curr_items"] == 201 and client.version() == b"1.6.45"
    client.flush_all(noreply=False)
    assert client.get_many(list(many)) == {}
    # without waiting for answers
    for i in range(1000):
        client.set("n", b"%d" % i, noreply=True)
    assert client.get("n") == b"999"
    client.quit()


def test_pymemcache_pool_and_hash_client(server):
    import pymemcache

    pool = pymemcache.PooledClient((server.host, server.port), max_pool_size=4)
    assert pool.set("k", b"v", noreply=False) and pool.get("k") == b"v"
    ring = pymemcache.HashClient([server.address], use_pooling=True)
    assert ring.set_many({"a": b"1", "b": b"2"}) == []
    assert ring.get_many(["a", "b", "c"]) == {"a": b"1", "b": b"2"}


def test_pylibmc_in_binary(either):
    import pylibmc

    client = pylibmc.Client([either.address], binary=True, behaviors={"cas": True, "tcp_nodelay": True})
    assert client.set("k", {"a": [1, 2]}) and client.get("k") == {"a": [1, 2]}
    assert client.get("missing") is None
    assert not client.add("k", 1) and client.replace("k", "text") and client.get("k") == "text"
    value, unique = client.gets("k")
    assert client.cas("k", "new", unique) and not client.cas("k", "newer", unique)
    assert client.set("n", 10) and client.incr("n", 5) == 15 and client.decr("n", 20) == 0
    many = {f"many{i}": i for i in range(300)}
    assert client.set_multi(many) == [] and client.get_multi(list(many) + ["missing"]) == many
    assert client.delete("k") and not client.delete("k")
    assert client.get_stats()[0][1]["version"] in (b"1.6.45", b"corecached 0.1.0")
    assert client.flush_all() and client.get("n") is None


def test_python_binary_memcached(either):
    import bmemcached

    client = bmemcached.Client((either.address,))
    assert client.set("k", "v") and client.get("k") == "v"
    assert client.get("missing") is None
    assert not client.add("k", "x") and client.replace("k", "w")
    value, unique = client.gets("k")
    assert value == "w" and client.cas("k", "new", unique) and not client.cas("k", "newer", unique)
    assert client.incr("n", 5, default=10) == 10 and client.incr("n", 5) == 15 and client.decr("n", 20) == 0
    many = {f"many{i}": f"value {i}" for i in range(300)}
    assert client.set_multi(many) == [] and client.get_multi(list(many) + ["missing"]) == many
    big = bytes(range(256)) * 4000
    assert client.set("big", big, compress_level=0) and client.get("big") == big
    assert client.delete("k") and client.get("k") is None
    stats = client.stats()[either.address]
    assert str(stats["version"]).strip("b'") in ("1.6.45", "corecached 0.1.0")
    assert client.set("short", "v", time=1)
    expires(lambda: client.get("short"))
    assert client.flush_all() and client.get("n") is None
    client.disconnect_all()


def test_pylibmc(server):
    import pylibmc

    client = pylibmc.Client([server.address], binary=False, behaviors={"cas": True, "tcp_nodelay": True})
    assert client.set("k", {"a": [1, 2]}) and client.get("k") == {"a": [1, 2]}
    assert client.get("missing") is None
    assert not client.add("k", 1) and client.replace("k", "text") and client.get("k") == "text"
    assert client.append("k", "s") and client.prepend("k", "a ") and client.get("k") == "a texts"
    value, unique = client.gets("k")
    assert client.cas("k", "new", unique) and not client.cas("k", "newer", unique)
    assert client.set("n", 10) and client.incr("n", 5) == 15 and client.decr("n", 1) == 14
    many = {f"many{i}": "x" * i for i in range(300)}
    assert client.set_multi(many) == []
    assert client.get_multi(list(many)) == many
    assert client.delete_multi(["many1", "many2"]) and client.get("many2") is None
    assert client.delete("k") and not client.delete("k")
    big = b"\x00\xff" * 250_000
    assert client.set("big", big) and client.get("big") == big
    assert client.set("short", 1, time=1)
    expires(lambda: client.get("short"))
    (_, stats), = client.get_stats()
    assert b"1.6.45" in stats.values() or "1.6.45" in stats.values()
    client.set("packed", "y" * 100_000, min_compress_len=100)
    assert client.get("packed") == "y" * 100_000
    assert client.flush_all() and client.get("n") is None


def test_pylibmc_without_waiting(server):
    import pylibmc

    behaviors = {"no_block": True, "tcp_nodelay": True}
    client = pylibmc.Client([server.address], binary=False, behaviors=behaviors)
    for i in range(500):
        client.set(f"k{i}", i)
    assert client.get_multi([f"k{i}" for i in range(500)]) == {f"k{i}": i for i in range(500)}


def python_memcached():
    """The module of python-memcached, which shares its name with the package `memcache`."""
    import memcache

    path = pathlib.Path(memcache.__file__).parent.parent / "memcache.py"
    spec = importlib.util.spec_from_file_location("python_memcached", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_python_memcached(server):
    client = python_memcached().Client([server.address], cache_cas=True)
    assert client.set("k", [1, "two"]) and client.get("k") == [1, "two"]
    assert client.get("missing") is None
    assert not client.add("k", 1) and client.replace("k", "text")
    assert client.append("k", "s") and client.prepend("k", "a ") and client.get("k") == "a texts"
    assert client.gets("k") == "a texts" and client.cas("k", "new")
    assert client.set("n", 10) and client.incr("n", 5) == 15 and client.decr("n") == 14
    many = {f"many{i}": "x" * i for i in range(100)}
    assert client.set_multi(many) == [] and client.get_multi(list(many)) == many
    assert client.delete_multi(["many1", "many2"]) and client.get("many1") is None
    assert client.touch("n", 100) and client.delete("n") and client.get("n") is None
    assert client.set("packed", "y" * 500_000, min_compress_len=10) and client.get("packed") == "y" * 500_000
    (_, stats), = client.get_stats()
    assert stats["version"] == "1.6.45"
    assert client.get_stats("settings") and client.get_slab_stats()
    client.flush_all()
    assert client.get("k") is None


def test_memcache_meta(server):
    import memcache

    client = memcache.Memcache((server.host, server.port))
    client.set("k", {"a": 1}, expire=100)
    assert client.get("k") == {"a": 1}
    assert client.get("missing") is None
    value, unique = client.gets("k")
    assert value == {"a": 1}
    client.cas("k", "new", unique)
    with pytest.raises(memcache.MemcacheError):
        client.cas("k", "newer", unique)
    assert client.get("k") == "new"
    client.set("key-é", "v")
    assert client.get("key-é") == "v"
    client.set("raw", b"x" * 300_000)
    assert client.get("raw") == b"x" * 300_000
    client.delete("k")
    assert client.get("k") is None
    command = memcache.MetaCommand(cm=b"mg", key=b"raw", flags=[b"v", b"s", b"t"])
    result = client.execute_meta_command(command)
    assert (result.rc, result.datalen, result.flags) == (b"VA", 300_000, [b"s300000", b"t-1"])
    client.flush_all()
    assert client.get("raw") is None


def test_memcache_meta_many_tasks(server):
    import asyncio

    import memcache

    async def run():
        client = memcache.AsyncMemcache((server.host, server.port))

        async def one(i):
            await client.set(f"k{i}", i)
            assert await client.get(f"k{i}") == i

        await asyncio.gather(*(one(i) for i in range(300)))

    asyncio.run(run())


def test_meta_memcache(server):
    from meta_memcache import CacheClient, Key, LeasePolicy, ServerAddress, SetMode, StalePolicy
    from meta_memcache import connection_pool_factory_builder

    client = CacheClient.cache_client_from_servers(
        servers=[ServerAddress(server.host, server.port)],
        connection_pool_factory_fn=connection_pool_factory_builder(),
    )
    assert client.set(Key("k"), "v", ttl=100) and client.get(Key("k")) == "v"
    assert client.get(Key("missing")) is None
    assert not client.set(Key("k"), "x", ttl=100, set_mode=SetMode.ADD)
    value, unique = client.get_cas(Key("k"))
    assert value == "v" and client.set(Key("k"), "w", ttl=100, cas_token=unique)
    assert not client.set(Key("k"), "x", ttl=100, cas_token=unique)
    many = {Key(f"many{i}"): i for i in range(200)}
    for key, value in many.items():
        client.set(key, value, ttl=100, no_reply=True)
    assert client.multi_get(list(many)) == many
    assert client.delta_and_get(Key("n"), 1) is None
    assert client.delta_initialize_and_get(Key("n"), 5, initial_value=10, initial_ttl=100) == 10
    assert client.delta_and_get(Key("n"), 5) == 15
    assert client.touch(Key("n"), ttl=100) and client.delete(Key("n")) and client.get(Key("n")) is None
    key = Key("k" * 300)  # hashed, and sent in base64
    assert client.set(key, b"long", ttl=100) and client.get(key) == b"long"
    key = Key("ключ with blanks")
    assert client.set(key, b"binary", ttl=100) and client.get(key) == b"binary"
    # leases: one reader fills what is missing, the others wait for it
    lease = LeasePolicy(ttl=30, miss_retries=1, miss_retry_wait=0.01)
    assert client.get_or_lease(Key("lease"), lease_policy=lease) is None
    assert client.set(Key("lease"), "new", ttl=100)
    assert client.get_or_lease(Key("lease"), lease_policy=lease) == "new"
    # stale while one reader renews it
    assert client.invalidate(Key("lease"), stale_policy=StalePolicy(mark_stale_on_deletion_ttl=30))
    assert client.get(Key("lease")) is None
    assert client.get(Key("lease")) == "new"

"""Faults beyond the tutorial, each under load: caches and proxies are restarted, added, removed, cut off,
killed and filled.

A cache may miss, and a fault may cause errors, but no value may be wrong. A stale value is one that was
overwritten. When a key moves to another cache and back, the first cache still has the old value, as with
any cache that does not learn of the change. Caches that come back empty cannot return stale values, so
there a stale value counts as wrong."""

import os
import signal
import time

import network
from load import KEYS, Load, row
from pages import caches_known_to, scrape
from patient import Patient
from terminal import Failed, Terminal

CACHE, PROXY = "mycache-memcached", "mycache-mcrouter"
# Shorter than in production: the time to drain, and the time to be ready before the next pod is replaced.
QUICK = "drain.seconds=3,minReadySeconds=2,mcrouter.drainSeconds=1"


class Faults:
    def __init__(self, stage, cluster, control, terminal: Terminal):
        self.stage, self.cluster, self.control, self.terminal = stage, cluster, control, terminal
        self.rows: list[list[str]] = []

    def cases(self):
        """The cases by name. The first one that runs installs the chart that most of them share."""
        yield "nothing happens", self.nothing
        yield "rolling restart of the caches", self.rolling
        yield "3 caches, then 5, then 2", self.scale
        yield "kill -9 of a cache", self.kill
        yield "rolling restart of the proxies", self.proxies
        yield "kill -9 of a proxy", self.kill_proxy
        yield "a node cut off for 10 s", self.cut
        yield "memory limit reached", self.full
        yield "killed by the kernel at its limit", self.overfull

    # --- helpers

    def install(self, more: str = "") -> None:
        """Installs the tutorial's pool of three caches behind proxies, with shorter drains."""
        self.stage.reset(self.cluster, self.control)
        # As during the upgrade of a cluster: the runtimes of some nodes allow io_uring, others do not.
        for node in self.cluster.nodes:
            node.denies_io_uring = node.number == 2
        self.terminal.run(f"helm install mycache chart --set memcached.replicaCount=3 --set {QUICK}{more}")
        self.ready()

    def shared(self) -> None:
        if not self.caches():
            self.install()

    def ready(self) -> None:
        self.control.wait(lambda: self.control.settled("StatefulSet", CACHE) and self.control.settled("DaemonSet", PROXY))
        count = len(self.caches())
        self.control.wait(lambda: all(caches_known_to(proxy) == count for proxy in self.cluster.find(app=PROXY)))

    def load(self, seconds: float, settles: bool = True, **how) -> Load:
        load = Load(self.stage.args.load, self.stage.folder, self.cluster.nodes[0], seconds, **how)
        if settles:
            load.settle()
        return load

    def judge(self, case: str, load: Load, errors_max: int | None = 0, keys_return: bool = False) -> dict:
        report = load.end()
        self.rows.append(row(case, report))
        faults = report["faults"]
        for example in faults["examples"][:3]:
            self.terminal.out(f"  the load saw: {example}")
        self.terminal.out(f"  {dict((name, count) for name, count in faults.items() if name != 'examples')}")
        if faults["wrong"]:
            raise Failed(f"{case}: {faults['wrong']} wrong values: {faults['examples']}")
        if faults["stale"] and not keys_return:
            raise Failed(f"{case}: {faults['stale']} stale values, though no key moved back: {faults['examples']}")
        if faults["broken_connections"]:
            raise Failed(f"{case}: {faults['broken_connections']} connections of a healthy proxy broke: {faults['examples']}")
        if errors_max is not None and faults["server_errors"] + faults["unanswered"] > errors_max:
            raise Failed(f"{case}: {faults['server_errors']} errors, {faults['unanswered']} unanswered, not {errors_max} or fewer")
        return report

    def caches(self):
        return self.cluster.find(app=CACHE)

    # --- cases

    def nothing(self) -> None:
        self.shared()
        report = self.judge("nothing happens", self.load(5))
        if report["misses"]:
            raise Failed(f"{report['misses']} misses of keys that were set, with memory to spare")

    def rolling(self) -> None:
        self.shared()
        load = self.load(21)
        self.terminal.run(f"kubectl rollout restart statefulset/{CACHE}")
        self.terminal.run(f"kubectl rollout status statefulset/{CACHE}")
        done = time.monotonic()
        report = self.judge("rolling restart", load)
        self.terminal.out(f"  all caches were new {time.monotonic() - done:.0f} s before the load ended")
        # The keys of each cache are lost with it, and lost again when the cache that has taken them over
        # restarts.
        if report["misses"] == 0:
            raise Failed("caches were restarted, and nothing was missed")

    def scale(self) -> None:
        self.shared()
        load = self.load(16)
        self.terminal.run(f"kubectl scale statefulset/{CACHE} --replicas=5")
        self.ready()
        time.sleep(2)
        self.terminal.run(f"kubectl scale statefulset/{CACHE} --replicas=2")
        self.control.wait(lambda: len(self.caches()) == 2)
        report = self.judge("3 -> 5 -> 2 caches", load, keys_return=True)
        # Two fifths of the keys move from three caches to five, and three fifths move to the two that stay,
        # where some of them still are. A key is missed at most once for each move.
        bound = (2 / 5 + 3 / 5) * KEYS
        if report["misses"] > bound * 1.1:
            raise Failed(f"{report['misses']} misses: more keys moved than must ({bound:.0f})")
        self.terminal.run(f"kubectl scale statefulset/{CACHE} --replicas=3")
        self.ready()

    def kill(self) -> None:
        self.shared()
        victim = self.caches()[1]
        load = self.load(10)
        self.terminal.out(f"  kill -9 of {victim.name}")
        os.kill(self.stage.process_of(victim), signal.SIGKILL)
        self.control.wait(lambda: victim.containers[0].restarts == 1 and victim.is_ready)
        self.judge("kill -9 of a cache", load, errors_max=None)
        if victim.containers[0].ends != [(137, "Error")]:
            raise Failed(f"it ended in another way: {victim.containers[0].ends}")

    def own_proxy(self):
        """The proxy of the node that the load runs on."""
        return next(pod for pod in self.cluster.find(app=PROXY) if pod.node is self.cluster.nodes[0])

    def without_proxy(self, case: str, happens) -> None:
        """Runs a case in which the proxy of a node stops. Its clients have none meanwhile: two pods cannot
        share a port of a node."""
        self.shared()
        patient = Patient(self.cluster.nodes[0].address, 5000)
        time.sleep(1)
        happens()
        time.sleep(1)
        report = patient.end()
        self.rows.append(row(case, report))
        self.terminal.out(f"  longest time without an answer: {report['latency']['max_us'] / 1e6:.1f} s; {report['faults']}")
        if report["faults"]["wrong"]:
            raise Failed(f"{case}: {report['faults']['wrong']} wrong values")
        if report["misses"] or report["faults"]["server_errors"]:
            raise Failed(f"{case}: {report['misses']} misses and {report['faults']['server_errors']} errors, though no cache stopped")

    def proxies(self) -> None:
        def happens():
            self.terminal.run(f"kubectl rollout restart daemonset/{PROXY}")
            self.terminal.run(f"kubectl rollout status daemonset/{PROXY}")

        self.without_proxy("rolling restart of proxies", happens)

    def kill_proxy(self) -> None:
        def happens():
            victim = self.own_proxy()
            os.kill(self.stage.process_of(victim), signal.SIGKILL)
            self.control.wait(lambda: victim.containers[0].restarts == 1 and victim.is_ready)

        self.without_proxy("kill -9 of a proxy", happens)

    def cut(self) -> None:
        self.shared()
        lost = next(node for node in self.cluster.nodes[1:] if any(pod.node is node for pod in self.caches()))
        load = self.load(20)
        self.terminal.out(f"  {lost.name} is cut off")
        network.cut(lost.number)
        time.sleep(10)
        network.mend(lost.number)
        self.terminal.out(f"  {lost.name} is back")
        self.judge("a node cut off for 10 s", load, errors_max=None, keys_return=True)
        self.ready()

    def full(self) -> None:
        limit = 64 << 20
        self.install(",resources.limits.memory=64Mi,resources.requests.memory=64Mi")
        # A quarter of a gigabyte into three times 48 MB, with enough connections to fill socket buffers.
        load = self.load(8, keys=170_000, sizes="500-2500", connections=200)
        report = self.judge("memory limit reached", load)
        for pod in self.caches():
            stats = scrape(pod)
            evicted, peak = stats["memcached_items_evicted_total"], stats["process_resident_memory_bytes"]
            self.terminal.out(f"  {pod.name}: {evicted:.0f} evicted, {peak / 2**20:.0f} of {limit >> 20} MiB resident, ended {pod.containers[0].ends}")
            if pod.containers[0].ends or not evicted:
                raise Failed(f"{pod.name}: ended {pod.containers[0].ends}, {evicted} evicted")
        if not report["misses"]:
            raise Failed("more than fits was stored, and nothing was missed")

    def overfull(self) -> None:
        """A mistake of the operator: -m is larger than the memory limit. The server warns at start, and
        the kernel kills it."""
        self.install(",resources.limits.memory=64Mi,resources.requests.memory=64Mi,cache.memoryMegabytes=400")
        said = self.terminal.run(f"kubectl logs {CACHE}-0 | grep WARN")
        if "memory" not in said:
            raise Failed(f"it did not warn: {said}")
        load = self.load(14)
        # With a range of keys of its own, so that it does not touch the keys of the judged load.
        flood = self.load(10, settles=False, keys=170_000, sizes="500-2500", first_key=1_000_000)
        self.judge("killed at the limit", load, errors_max=None, keys_return=True)
        flood.stop()
        ends = [end for pod in self.caches() for end in pod.containers[0].ends]
        self.terminal.out(f"  ended: {ends}")
        if (137, "OOMKilled") not in ends:
            raise Failed(f"no cache was killed at the limit: {ends}")


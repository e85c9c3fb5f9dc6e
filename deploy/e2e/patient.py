"""A client that reconnects when its proxy stops; the load generator would fail there. It sends one request
after the other, and compares each value with all values that may be stored."""

import threading
import time

from pymemcache.client.base import Client
from pymemcache.exceptions import MemcacheError, MemcacheUnexpectedCloseError

KEYS = 500
TIMEOUT_S = 2
# Seconds between two attempts to connect.
PAUSE_S = 0.02


class Patient:
    def __init__(self, address: str, port: int):
        self._client = Client((address, port), timeout=TIMEOUT_S, connect_timeout=TIMEOUT_S, default_noreply=False)
        # Keys of its own, so that it knows every value that may be stored under them.
        self._prefix = f"patient-{time.monotonic_ns()}-"
        # For each key: the last acknowledged value, and all values sent since then without a reply.
        self._known: dict[str, set[bytes]] = {}
        for number in range(KEYS):
            self._client.set(f"{self._prefix}{number}", b"0")
            self._known[f"{self._prefix}{number}"] = {b"0"}
        self.requests = self.hits = self.misses = self.errors = self.broken = self.wrong = 0
        self.latencies: list[float] = []
        self.longest_s = 0.0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._work, daemon=True)
        self._thread.start()

    def _work(self) -> None:
        number, last = 0, time.monotonic()
        while not self._stop.is_set():
            number += 1
            key, value = f"{self._prefix}{number % KEYS}", b"%d" % number
            begun = time.monotonic()
            try:
                self._known[key].add(value)
                self._client.set(key, value)
                self._known[key] = {value}
                self._compare(f"{self._prefix}{number * 7 % KEYS}")
                last, gap = time.monotonic(), time.monotonic() - last
                self.longest_s = max(self.longest_s, gap)
                self.latencies.append((last - begun) / 2)
                self.requests += 2
            except (OSError, MemcacheUnexpectedCloseError):
                self.broken += 1
                self._client.close()
                time.sleep(PAUSE_S)
            except MemcacheError:
                self.errors += 1

    def _compare(self, key: str) -> None:
        found = self._client.get(key)
        if found is None:
            self.misses += 1
        elif found in self._known[key]:
            self.hits += 1
        else:
            self.wrong += 1

    def end(self) -> dict:
        """Returns a report like that of the load generator. Broken connections include failed attempts to
        connect."""
        self._stop.set()
        self._thread.join()
        self._client.close()
        ordered = sorted(self.latencies)
        return {
            "requests": self.requests,
            "misses": self.misses,
            "hit_ratio": self.hits / max(1, self.hits + self.misses),
            "faults": {
                "wrong": self.wrong, "stale": 0, "server_errors": self.errors, "unanswered": 0,
                "broken_connections": self.broken, "examples": [],
            },
            "latency": {"p99_us": 1e6 * ordered[len(ordered) * 99 // 100], "max_us": 1e6 * self.longest_s},
        }  # fmt: skip

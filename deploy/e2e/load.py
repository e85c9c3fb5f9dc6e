"""Runs the verifying load generator on a node against the proxy of that node."""

import json
import pathlib
import subprocess
import time

import network

# Requests a second: few enough for the machine, so that errors are caused by the fault and not by the load.
RATE = 1500
KEYS = 20_000
# Seconds for the fill and the first replies after it.
BEFORE_S = 2.5


class Load:
    """A run in an open loop: requests are sent when they are due, whether or not earlier ones are
    answered. Every byte of every value is verified, and its version is compared with the newest one that
    was acknowledged."""

    def __init__(self, program: pathlib.Path, folder: pathlib.Path, node, seconds: float, keys: int = KEYS, sizes: str = "24-2000", connections: int = 16, first_key: int = 0):
        self.report_path = folder / f"load-{first_key}.json"
        self.report_path.unlink(missing_ok=True)
        self.seconds = seconds
        command = [
            "nsenter", f"--net=/run/netns/{network.namespace(node.number)}", program, "load", "--target", f"{node.address}:5000",
            "--verify", "--fill", "--connections", connections, "--keys", keys, "--first-key", first_key, "--value-size", sizes, "--resize",
            "--rate", RATE, "--sleep", "--seconds", seconds, "--json", self.report_path,
        ]  # fmt: skip
        self.process = subprocess.Popen(list(map(str, command)), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)

    def settle(self) -> None:
        """Waits until the keys are set and requests are being sent."""
        time.sleep(BEFORE_S)
        if self.process.poll() is not None:
            raise RuntimeError(f"the load ended before anything happened: {self.process.stdout.read()}")

    def end(self) -> dict:
        said, _ = self.process.communicate(timeout=self.seconds + 60)
        if not self.report_path.exists():
            raise RuntimeError(f"the load made no report: {said}")
        return json.loads(self.report_path.read_text())

    def stop(self) -> None:
        self.process.kill()
        self.process.communicate()


COLUMNS = ("case", "requests", "hit ratio", "misses", "server errors", "unanswered", "broken", "stale", "WRONG", "p99 ms", "max ms")


def row(case: str, report: dict) -> list[str]:
    faults, latency = report["faults"], report["latency"]
    return [
        case,
        str(report["requests"]),
        f"{report['hit_ratio']:.3f}",
        str(report["misses"]),
        *(str(faults[name]) for name in ("server_errors", "unanswered", "broken_connections", "stale", "wrong")),
        f"{latency['p99_us'] / 1000:.1f}",
        f"{latency['max_us'] / 1000:.0f}",
    ]


def table(rows: list[list[str]]) -> str:
    widths = [max(map(len, column)) for column in zip(COLUMNS, *rows)]
    line = lambda cells: "| " + " | ".join(cell.ljust(width) for cell, width in zip(cells, widths)) + " |"
    return "\n".join([line(COLUMNS), line(["-" * width for width in widths]), *map(line, rows)])

"""Tests of monitoring: promtool checks the metrics of cache and proxy; a real Prometheus scrapes them,
evaluates the alert rules of the chart, and answers every query of its dashboard."""

import json
import pathlib
import re
import subprocess
import time
import urllib.parse
import urllib.request

import yaml

from load import Load
from pages import caches_known_to, page_of
from terminal import Failed, Terminal

PORT = 9090
SCRAPE_S = 1
# Seconds in which every query must return a result.
ANSWER_S = 20
# Values of the variables of the dashboard.
CHOSEN = {"$__rate_interval": "6s", "$namespace": "default", "$pod": "mycache-.*"}
NAME = re.compile(r"\b((?:memcached|corecached|process)_[a-z_]+)\b(?=\{|\[)")
SET = "metrics.enabled=true,metrics.prometheusRule.enabled=true,metrics.dashboard.enabled=true"


class Monitoring:
    def __init__(self, stage, cluster, control, terminal: Terminal):
        self.stage, self.cluster, self.control, self.terminal = stage, cluster, control, terminal
        self.folder: pathlib.Path = stage.folder / "prometheus"

    def play(self) -> None:
        self.terminal.run(f"helm install mycache chart --set memcached.replicaCount=3 --set {SET}")
        self.control.wait(lambda: self.control.settled("StatefulSet", "mycache-memcached"))
        self.control.wait(lambda: self.control.settled("DaemonSet", "mycache-mcrouter"))
        # A ready proxy may know only one cache; the others follow when they are ready. The load is for all
        # three.
        self.control.wait(lambda: all(caches_known_to(proxy) == 3 for proxy in self.cluster.find(app="mycache-mcrouter")))
        pods = self.cluster.find(**{"app.kubernetes.io/instance": "mycache"})
        for pod in (pods[0], pods[-1]):
            self.lint(pod)
        load = Load(self.stage.args.load, self.stage.folder, self.cluster.nodes[0], 30)
        process = self.start(pods)
        try:
            self.control.wait(self.is_up, ANSWER_S)
            load.settle()
            self.ask(pods)
        finally:
            load.stop()
            process.terminate()
            process.wait()

    def lint(self, pod) -> None:
        """Checks the metrics of a pod with the linter of Prometheus."""
        with urllib.request.urlopen(page_of(pod, "text/plain"), timeout=5) as page:
            text = page.read()
        done = subprocess.run(["promtool", "check", "metrics"], input=text, capture_output=True, check=False)
        said = (done.stdout + done.stderr).decode().strip()
        self.terminal.out(f"  promtool check metrics of {pod.name}: {len(text.splitlines())} lines, exit code {done.returncode}")
        if done.returncode or said:
            raise Failed(f"promtool check metrics, {pod.name}: {said}")

    def start(self, pods) -> subprocess.Popen:
        self.folder.mkdir()
        (rule,) = [one for (kind, _), one in self.cluster.objects.items() if kind == "PrometheusRule"]
        (self.folder / "rules.yaml").write_text(yaml.safe_dump(rule["spec"]))
        # The labels that pod discovery would add.
        targets = [{"targets": [f"{pod.address}:9150"], "labels": {"namespace": "default", "pod": pod.name}} for pod in pods]
        config = {
            "global": {"scrape_interval": f"{SCRAPE_S}s", "evaluation_interval": f"{SCRAPE_S}s"},
            "rule_files": ["rules.yaml"],
            "scrape_configs": [{"job_name": "corecached", "static_configs": targets}],
        }
        (self.folder / "prometheus.yaml").write_text(yaml.safe_dump(config))
        log = (self.stage.logs / "prometheus.log").open("w")
        return subprocess.Popen(
            [
                "prometheus", f"--config.file={self.folder}/prometheus.yaml", f"--storage.tsdb.path={self.folder}/data",
                f"--web.listen-address=127.0.0.1:{PORT}",
            ],
            stdout=log, stderr=log,
        )  # fmt: skip

    @staticmethod
    def is_up() -> bool:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{PORT}/-/ready", timeout=1) as page:
                return page.status == 200
        except OSError:
            return False

    @staticmethod
    def get(path: str, **query: str):
        with urllib.request.urlopen(f"http://127.0.0.1:{PORT}/api/v1/{path}?{urllib.parse.urlencode(query)}", timeout=10) as page:
            answer = json.load(page)
        if answer["status"] != "success":
            raise Failed(f"{path} {query}: {answer}")
        return answer["data"]

    def ask(self, pods) -> None:
        scraped = lambda: {one["labels"]["pod"] for one in self.get("targets")["activeTargets"] if one["health"] == "up"}
        self.control.wait(lambda: scraped() == {pod.name for pod in pods}, ANSWER_S)
        self.terminal.out(f"  Prometheus scrapes {len(pods)} pods")
        rules = [rule for group in self.get("rules")["groups"] for rule in group["rules"]]
        if not rules or any((rule["health"], rule["state"]) != ("ok", "inactive") for rule in rules):
            raise Failed(f"rules: {[(rule['name'], rule['health'], rule['state'], rule.get('lastError')) for rule in rules]}")
        self.terminal.out(f"  {len(rules)} alert rules are evaluated, and none of them fires")
        (dashboard,) = [one for (kind, name), one in self.cluster.objects.items() if kind == "ConfigMap" and name.endswith("-dashboard")]
        panels = json.loads(dashboard["data"]["corecached.json"])["panels"]
        queries = [(panel["title"], target["expr"]) for panel in panels for target in panel["targets"]]
        there = set(self.get("label/__name__/values"))
        asked = {name for text in [expr for _, expr in queries] + [rule["query"] for rule in rules] for name in NAME.findall(text)}
        if asked - there:
            raise Failed(f"rules and dashboard use metrics that do not exist: {sorted(asked - there)}")
        for title, expr in queries:
            for name, value in CHOSEN.items():
                expr = expr.replace(name, value)
            found = self.answer(title, expr)
            self.terminal.out(f"  {title}: {len(found)} series, the first is {float(found[0]['value'][1]):.4g}")

    def answer(self, title: str, expr: str) -> list:
        """Repeats a query until it has a result: a rate needs two scrapes."""
        end = time.monotonic() + ANSWER_S
        while not (found := self.get("query", query=expr)["result"]):
            if time.monotonic() > end:
                raise Failed(f"{title}: no answer to {expr}")
            time.sleep(0.2)
        return found

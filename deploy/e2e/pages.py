"""Reads the metrics of a pod."""

import re
import urllib.request

from prometheus_client.openmetrics.parser import text_string_to_metric_families


def scrape(pod) -> dict[str, float]:
    """Returns the metrics of a pod, summed over labels."""
    with urllib.request.urlopen(page_of(pod, "application/openmetrics-text"), timeout=5) as page:
        text = page.read().decode()
    sums: dict[str, float] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            sums[sample.name] = sums.get(sample.name, 0) + sample.value
    return sums


def backend_of(pod) -> str:
    """Returns the network backend that a pod reports."""
    with urllib.request.urlopen(page_of(pod, "text/plain"), timeout=5) as page:
        said = re.findall(r'^corecached_io_backend_info\{.*backend="(\w+)".*\} 1', page.read().decode(), re.MULTILINE)
    return " and ".join(said)


def caches_known_to(proxy) -> int:
    """Returns the number of destinations of a proxy."""
    with urllib.request.urlopen(page_of(proxy, "text/plain"), timeout=5) as page:
        return len(re.findall(r"^corecached_proxy_destination_ejected\{", page.read().decode(), re.MULTILINE))


def page_of(pod, kind: str) -> urllib.request.Request:
    return urllib.request.Request(f"http://{pod.address}:9150/metrics", headers={"Accept": kind})

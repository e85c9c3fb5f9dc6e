"""The DNS server of the cluster: names of services, pods of headless services, and nodes, as in CoreDNS
and GKE."""

import random

from dnslib import QTYPE, RCODE, RR, SRV, A
from dnslib.server import BaseResolver, DNSLogger, DNSServer

import network

ZONE = "svc.cluster.local"
# TTL of answers in seconds, as in kube-dns.
TTL_S = 30


class Names(BaseResolver):
    def __init__(self, cluster):
        self.cluster = cluster
        quiet = DNSLogger("-request,-reply,-truncated")
        self._servers = [DNSServer(self, network.FABRIC, 53, tcp=tcp, logger=quiet) for tcp in (False, True)]
        for server in self._servers:
            server.start_thread()

    def resolve(self, request, handler):
        del handler
        reply = request.reply()
        name = str(request.q.qname).rstrip(".").lower()
        addresses, targets = self._find(name)
        if addresses is None:
            reply.header.rcode = RCODE.NXDOMAIN
            return reply
        random.shuffle(addresses)
        kind = QTYPE[request.q.qtype]
        if kind == "A":
            for address in addresses:
                reply.add_answer(RR(request.q.qname, QTYPE.A, rdata=A(address), ttl=TTL_S))
        elif kind == "SRV":
            for target, port, address in targets:
                reply.add_answer(RR(request.q.qname, QTYPE.SRV, rdata=SRV(0, 100, port, target), ttl=TTL_S))
                reply.add_ar(RR(target, QTYPE.A, rdata=A(address), ttl=TTL_S))
        return reply

    def _find(self, name: str):
        """Returns addresses, and (name, port, address) of servers; None and an empty list if the name does
        not exist."""
        for node in self.cluster.nodes:
            if name == node.name:
                return [node.address], []
        if not name.endswith(f".{ZONE}"):
            return None, []
        parts = name.removesuffix(f".{ZONE}").split(".")
        asked_port = None
        if len(parts) == 4 and parts[0].startswith("_"):
            asked_port, parts = parts[0][1:], parts[2:]
        for service in self.cluster.services():
            if parts[-2:] != [service["metadata"]["name"], service["metadata"].get("namespace", "default")]:
                continue
            own = self.cluster.address_of(service)
            if own:
                return ([own], []) if len(parts) == 2 else (None, [])
            pods = self.cluster.endpoints(service)
            if len(parts) == 3:
                pods = [pod for pod in pods if host_of(pod, service) == parts[0]]
            elif len(parts) != 2:
                return None, []
            if not pods:
                return None, []
            ports = [port for port in service["spec"]["ports"] if asked_port in (None, port["name"])]
            targets = [
                (f"{host_of(pod, service) or pod.address.replace('.', '-')}.{'.'.join(parts[-2:])}.{ZONE}", port["port"], pod.address)
                for pod in pods
                for port in ports
            ]
            return [pod.address for pod in pods], targets
        return None, []

    def stop(self) -> None:
        for server in self._servers:
            server.stop()


def host_of(pod, service) -> str | None:
    spec = pod.manifest["spec"]
    return spec.get("hostname") if spec.get("subdomain") == service["metadata"]["name"] else None

"""The network: nodes are network namespaces, connected by a bridge in the namespace of this program. It
has routes between the pods of different nodes, and the addresses of services are DNAT rules on each node."""

import subprocess

FABRIC = "10.128.0.1"
BRIDGE = "fabric0"
DNS_SERVICE = "10.96.0.10"
SERVICES = "10.96.0.0/16"


def run(*command, stdin=None) -> str:
    done = subprocess.run(command, input=stdin, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(map(str, command))}: {done.stderr.strip() or done.returncode}")
    return done.stdout


def node_address(number: int) -> str:
    return f"10.128.0.{10 + number}"


def pods_of(number: int) -> str:
    return f"10.36.{number}.0/24"


def namespace(number: int) -> str:
    return f"node-{number}"


def inside(number: int, *command, stdin=None) -> str:
    """Runs a command in the namespace of a node. `ip netns exec` would mount another /sys, which hides
    control groups."""
    return run("nsenter", f"--net=/run/netns/{namespace(number)}", *command, stdin=stdin)


def lay(nodes: int) -> None:
    """Creates the bridge and the namespaces of the nodes."""
    run("ip", "link", "set", "lo", "up")
    run("ip", "link", "add", BRIDGE, "type", "bridge")
    run("ip", "addr", "add", f"{FABRIC}/24", "dev", BRIDGE)
    run("ip", "link", "set", BRIDGE, "up")
    for number in range(1, nodes + 1):
        name, cable = namespace(number), f"cable{number}"
        run("ip", "netns", "add", name)
        run("ip", "link", "add", cable, "type", "veth", "peer", "name", "eth0", "netns", name)
        run("ip", "link", "set", cable, "master", BRIDGE, "up")
        inside(number, "ip", "link", "set", "lo", "up")
        inside(number, "ip", "addr", "add", f"{node_address(number)}/24", "dev", "eth0")
        inside(number, "ip", "link", "set", "eth0", "up")
        inside(number, "ip", "route", "add", "default", "via", FABRIC)
        inside(number, "sysctl", "-qw", "net.ipv4.ip_forward=1")
        run("ip", "route", "add", pods_of(number), "via", node_address(number))
    for here in range(1, nodes + 1):
        for there in range(1, nodes + 1):
            if here != there:
                inside(here, "ip", "route", "add", pods_of(there), "via", node_address(there))


def cut(number: int) -> None:
    """Disconnects a node."""
    run("ip", "link", "set", f"cable{number}", "down")


def mend(number: int) -> None:
    run("ip", "link", "set", f"cable{number}", "up")


def serve(number: int, services: list[tuple[str, str, int, list[tuple[str, int]]]]) -> None:
    """Replaces the rules for services on a node. A service is (address, protocol, port, targets); a target
    is chosen at random for each new connection. Established connections keep their target."""
    lines = ["*nat", ":SERVICES - [0:0]", ":SERVICES-BACK - [0:0]"]
    for address, protocol, port, targets in services:
        match = f"-A SERVICES -d {address} -p {protocol} --dport {port}"
        for index, (target, target_port) in enumerate(targets):
            left = len(targets) - index
            chance = f" -m statistic --mode random --probability {1 / left:.6f}" if left > 1 else ""
            lines.append(f"{match}{chance} -j DNAT --to-destination {target}:{target_port}")
    # For a pod that connects by a service to a pod on the same node: replies must return through the node.
    subnet = pods_of(number)
    lines.append(f"-A SERVICES-BACK -s {subnet} -d {subnet} -m conntrack --ctstate DNAT -j MASQUERADE")
    inside(number, "iptables-restore", "--noflush", stdin="\n".join([*lines, "COMMIT", ""]))


def hook(number: int) -> None:
    """Creates the chains for services on a node. Call it once for each node."""
    for chain in ("SERVICES", "SERVICES-BACK"):
        inside(number, "iptables", "-t", "nat", "-N", chain)
    for chain in ("PREROUTING", "OUTPUT"):
        inside(number, "iptables", "-t", "nat", "-A", chain, "-d", SERVICES, "-j", "SERVICES")
    inside(number, "iptables", "-t", "nat", "-A", "POSTROUTING", "-j", "SERVICES-BACK")

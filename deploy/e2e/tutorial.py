"""Google's tutorial on memcached in Kubernetes, step by step: its commands in a shell, at a terminal where
the tutorial uses one, with a check of the output after each."""

import re

from pymemcache.client.base import Client

import network
from pages import backend_of, caches_known_to
from terminal import Failed, Session, Terminal

SAMPLE = """cat <<EOF | kubectl create -f -
apiVersion: apps/v1
kind: Deployment
metadata:
  name: {name}
spec:
  selector:
    matchLabels:
      app: {name}
  replicas: 9
  template:
    metadata:
      labels:
        app: {name}
    spec:
      containers:
        - name: {container}
          image: {image}
          command: [ "sh", "-c"]
          args:
          - while true; do sleep 10; done;
          env:
            - name: NODE_NAME
              valueFrom:
                fieldRef:
                  fieldPath: spec.nodeName
EOF"""


class Tutorial:
    def __init__(self, terminal: Terminal, cluster, control, chart: str, denied: bool):
        self.terminal, self.cluster, self.control, self.chart = terminal, cluster, control, chart
        self.backend = "epoll" if denied else "io_uring"

    def play(self) -> None:
        self.pool()
        self.proxy()
        self.on_every_node()

    def step(self, number: int, title: str) -> None:
        self.terminal.out(f"-- step {number}: {title}")

    def ready(self, kind: str, name: str) -> None:
        self.control.wait(lambda: self.control.settled(kind, name))

    # --- A

    def pool(self) -> None:
        terminal = self.terminal
        name, domain = "mycache-memcached", "mycache-memcached.default.svc.cluster.local"
        self.step(2, "a pool of three caches")
        terminal.run(f'helm install mycache {self.chart} --set architecture="high-availability" --set autoscaling.enabled="true"')
        self.ready("StatefulSet", name)
        row = r"{}-{} +1/1 +Running +0 +\d+s"
        terminal.run("kubectl get pods", "NAME.*\n" + "\n".join(row.format(name, n) for n in range(3)))
        self.step(3, "the service is headless")
        terminal.run(f'kubectl get service {name} -o jsonpath="{{.spec.clusterIP}}"', "None")
        terminal.run(f"kubectl get endpoints {name}", rf"NAME +ENDPOINTS\n{name} +" + ",".join([r"[\d.]+:11211"] * 3))
        with terminal.sit(f"kubectl run -it --rm busybox --image=busybox:1.33 --restart=Never -- nslookup {domain}") as session:
            found = re.findall(r"^Address[ \d]*: ([\d.]+)$", session.end(), re.MULTILINE)
        if sorted(found) != self.addresses(name):
            raise Failed(f"nslookup: {found}, not {self.addresses(name)}")
        self.step(4, "discovery from Python")
        with terminal.sit("kubectl run -it --rm python --image=python:3.10-alpine --restart=Never sh") as session:
            session.wait("# ")
            session.say("pip install pymemcache")
            session.wait("Successfully installed pymemcache")
            self.python(session, ["import socket", f"print(socket.gethostbyname_ex('{domain}'))"])
            said = session.wait(rf"\('{domain}', \[.*\], \[.*\]\)\r")
            if sorted(re.findall(r"[\d]+\.[\d.]+", said)) != self.addresses(name):
                raise Failed(f"gethostbyname_ex: {said}")
            session.wait(">>> ")
            self.step(6, "a client that finds its servers")
            lines = [
                "import socket",
                "from pymemcache.client.hash import HashClient",
                f"_, _, ips = socket.gethostbyname_ex('{domain}')",
                "servers = [(ip, 11211) for ip in ips]",
                "client = HashClient(servers, use_pooling=True)",
                "client.set('mykey', 'hello')",
            ]
            for line in lines:
                session.say(line)
                session.wait(">>> ")
            session.say("client.get('mykey')")
            session.wait("b'hello'\r")
            session.wait(">>> ")
            # The tutorial says that keys spread: of three hundred keys, each cache must have at least 60.
            session.say("_ = [client.set(f'key{n}', str(n)) for n in range(300)]")
            session.wait(">>> ")
            session.say("assert all(client.get(f'key{n}') == str(n).encode() for n in range(300)); sorted(int(c.stats()[b'curr_items']) for c in client.clients.values())")
            spread = [int(n) for n in re.findall(r"\d+", session.wait(r"\[\d+, \d+, \d+\]"))]
            if sum(spread) != 301 or spread[0] < 60:
                raise Failed(f"keys do not spread: {spread}")
            session.say("exit()")
            session.say("exit")
            session.end()
        self.step(5, "telnet to one of them, by its name")
        self.telnet(f"{name}-0.{domain} 11211", "mykey", "hello", sets=True)

    # --- B

    def proxy(self) -> None:
        terminal = self.terminal
        self.step(7, "caches behind proxies")
        terminal.run("helm delete mycache", 'release "mycache" uninstalled')
        self.control.wait(lambda: not self.cluster.find(app="mycache-memcached"))
        terminal.run(f"helm install mycache {self.chart} --set memcached.replicaCount=3")
        self.ready("StatefulSet", "mycache-memcached")
        self.ready("DaemonSet", "mycache-mcrouter")
        caches, proxies = r"mycache-memcached-{} +1/1 +Running +0 +\d+s", r"mycache-mcrouter-\w+ +1/1 +Running +0 +\d+s"
        terminal.run("kubectl get pods", "NAME.*\n" + "\n".join([proxies] * 3 + [caches.format(n) for n in range(3)]))
        self.backends()
        # Proxies look twice a second for caches that have become ready.
        self.control.wait(lambda: all(caches_known_to(proxy) == 3 for proxy in self.cluster.find(app="mycache-mcrouter")))
        self.step(8, "telnet to a proxy")
        command = 'kubectl get pods -l app=mycache-mcrouter -o jsonpath="{.items[0].status.podIP}"'
        terminal.run(command, r"10\.36\.\d+\.\d+")
        self.telnet("$MCROUTER_POD_IP 5000", "anotherkey", "Mcrouter is fun", sets=True, before=f"MCROUTER_POD_IP=$({command}); ")

    # --- C

    def on_every_node(self) -> None:
        terminal = self.terminal
        self.step(9, "one proxy on every node")
        nodes = sorted(pod.node.name for pod in self.cluster.find(app="mycache-mcrouter"))
        terminal.out(f"  {', '.join(nodes)}")
        if nodes != sorted(node.name for node in self.cluster.nodes):
            raise Failed("not one proxy on every node")
        self.step(10, "nine applications that know their node")
        terminal.run(SAMPLE.format(name="sample-application", container="busybox", image="busybox:1.33"))
        self.ready("Deployment", "sample-application")
        terminal.run("POD=$(kubectl get pods -l app=sample-application -o jsonpath=\"{.items[0].metadata.name}\"); kubectl exec $POD -- sh -c 'echo $NODE_NAME'", r"gke-demo-cluster-default-pool-\d")
        self.step(11, "each of them asks the proxy of its own node")
        for pod in self.cluster.find(app="sample-application"):
            self.telnet("$NODE_NAME 5000", "anotherkey", "Mcrouter is fun", sets=False, within=pod.name)
        self.step(12, "the application in Python, on each node")
        terminal.run(SAMPLE.format(name="sample-application-py", container="python", image="python:3.10-alpine"))
        self.ready("Deployment", "sample-application-py")
        seen = set()
        for pod in self.cluster.find(app="sample-application-py"):
            if pod.node in seen:
                continue
            seen.add(pod.node)
            with terminal.sit(f"kubectl exec -it {pod.name} -- sh") as session:
                session.wait("# ")
                session.say("pip install pymemcache")
                session.wait("Successfully installed pymemcache")
                lines = [
                    "import os",
                    "from pymemcache.client.base import Client",
                    "NODE_NAME = os.environ['NODE_NAME']",
                    "client = Client((NODE_NAME, 5000))",
                    "client.set('some_key', 'some_value')",
                    "result = client.get('some_key')",
                    "print(result)",
                ]
                self.python(session, lines)
                session.wait("b'some_value'")
                session.say("exit()")
                session.say("exit")
                session.end()
        self.spread()

    def spread(self) -> None:
        """Checks what the tutorial says without a command: the proxy spreads keys over all caches, and
        every proxy finds keys that were set through another."""
        # noreply is off, so each set is answered before a get through another proxy is sent.
        proxies = [Client((network.node_address(node.number), 5000), timeout=5, default_noreply=False) for node in self.cluster.nodes]
        for number in range(300):
            proxies[number % 3].set(f"spread{number}", str(number))
        for number in range(300):
            if proxies[(number + 1) % 3].get(f"spread{number}") != str(number).encode():
                raise Failed(f"spread{number} is not found by the next proxy")
        counts = []
        for pod in self.cluster.find(app="mycache-memcached"):
            client = Client((pod.address, 11211), timeout=5)
            counts.append(int(client.stats()[b"curr_items"]))
            client.close()
        for client in proxies:
            client.close()
        self.terminal.out(f"  items on the caches after 300 sets through three proxies: {counts}")
        if sum(counts) < 300 or min(counts) < 60:
            raise Failed(f"keys do not spread: {counts}")

    def backends(self) -> None:
        """Checks that each pod uses the network backend that its seccomp profile allows."""
        for pod in self.cluster.find(**{"app.kubernetes.io/instance": "mycache"}):
            if backend_of(pod) != self.backend:
                raise Failed(f"{pod.name}: network backend {backend_of(pod)}, not {self.backend}")
        self.terminal.out(f"  all pods use the network backend {self.backend}")

    # --- helpers

    def addresses(self, name: str) -> list[str]:
        return sorted(pod.address for pod in self.cluster.find(app=name))

    @staticmethod
    def python(session: Session, lines: list[str]) -> None:
        session.say("python")
        session.wait(">>> ")
        for line in lines[:-1]:
            session.say(line)
            session.wait(">>> ")
        session.say(lines[-1])

    def telnet(self, where: str, key: str, value: str, sets: bool, before: str = "", within: str = "") -> None:
        if within:
            command = f"kubectl exec -it {within} -- sh -c 'telnet {where}'"
        else:
            command = f"{before}kubectl run -it --rm alpine --image=alpine:3.6 --restart=Never telnet {where}"
        with self.terminal.sit(command) as session:
            session.wait("Connected to ")
            if sets:
                session.say(f"set {key} 0 0 {len(value)}")
                session.say(value)
                session.wait("STORED\r")
            session.say(f"get {key}")
            session.wait(f"VALUE {key} 0 {len(value)}\r+\n{value}\r+\nEND\r")
            session.say("quit")
            session.end()


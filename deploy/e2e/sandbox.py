"""The requirements on this machine, and the namespaces that everything runs in.

unshare(1) gives the play mounts, processes and networks of its own. When its first process ends, for any
reason, the kernel ends all others and removes every mount, interface, address and rule. Only a folder and
empty control groups remain to be removed. The play does not touch the containerd, networks and rules of
the machine.
"""

import ctypes
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile
import time

# Needed commands, each with its Debian package.
COMMANDS = {
    "containerd": "containerd",
    "ctr": "containerd",
    "runc": "runc",
    "iptables": "iptables",
    "ip": "iproute2",
    "unshare": "util-linux",
    "nsenter": "util-linux",
    "sysctl": "procps",
    "busybox": "busybox-static",
    "cc": "build-essential",
}
PLUGINS = pathlib.Path("/usr/lib/cni")
INSIDE = "CORECACHED_E2E_FOLDER"
CONTROL_GROUPS = pathlib.Path("/sys/fs/cgroup")
# Folders that containerd and the CNI plugins write to whatever their configuration says.
COVERED = ("/run", "/var/lib/cni", "/var/lib/containerd", "/etc/cni")
CLONE_NEWNET = 0x40000000
PR_SET_PDEATHSIG = 1


def missing() -> list[str]:
    """The reasons why the play cannot run on this machine; empty if it can."""
    if os.geteuid() != 0:
        return ["not root: containers and networks need it"]
    found = [f"{command} (Debian: {package})" for command, package in COMMANDS.items() if not shutil.which(command)]
    found += [
        f"{PLUGINS / name} (Debian: containernetworking-plugins)"
        for name in ("bridge", "host-local", "loopback", "portmap")
        if not (PLUGINS / name).exists()
    ]
    if not found:
        tried = subprocess.run([*UNSHARE, "true"], capture_output=True, text=True, check=False)
        if tried.returncode:
            found.append(f"namespaces: {tried.stderr.strip()}")
    return found


UNSHARE = ["unshare", "--mount", "--propagation", "private", "--net", "--pid", "--fork", "--kill-child=KILL", "--mount-proc"]


def enter(arguments: list[str]) -> int:
    """Runs this program again in namespaces of its own, removes what it leaves, and returns its exit code."""
    folder = tempfile.mkdtemp(prefix="corecached-e2e-")
    # In a session of its own, so that Ctrl-C reaches this process alone.
    inner = subprocess.Popen(
        [*UNSHARE, sys.executable, *arguments], env={**os.environ, INSIDE: folder}, start_new_session=True, preexec_fn=die_with_parent
    )

    def stop(*_):
        inner.kill()

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, stop)
    code = inner.wait()
    clear(pathlib.Path(folder))
    return code if code >= 0 else 128 - code


def die_with_parent() -> None:
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def group(folder: pathlib.Path) -> str:
    """The control group of all containers of the play."""
    return "/" + folder.name


def clear(folder: pathlib.Path) -> None:
    """Removes what remains after the namespaces are gone."""
    deadline = time.monotonic() + 10
    while True:
        left = [path for path in (*CONTROL_GROUPS.glob(folder.name), *CONTROL_GROUPS.glob(f"*/{folder.name}"))]
        for top in left:
            for path, _, _ in os.walk(top, topdown=False):
                try:
                    os.rmdir(path)
                except OSError:
                    pass  # Its last process is still ending; the next round finds it empty.
        if not [path for path in left if path.exists()]:
            break
        if time.monotonic() > deadline:
            print(f"left behind, not empty: {', '.join(map(str, left))}", file=sys.stderr)
            break
        time.sleep(0.1)
    os.rmdir(folder)


def settle(folder: pathlib.Path) -> None:
    """Mounts private folders over those that the play writes to. Called first inside the namespaces."""
    for path in (str(folder), *COVERED):
        if os.path.isdir(path):
            subprocess.run(["mount", "-t", "tmpfs", "-o", "mode=755", "corecached-e2e", path], check=True)
    os.makedirs("/run/netns")
    # The names of network namespaces are mounts here; child mount namespaces must see them.
    subprocess.run(["mount", "--bind", "/run/netns", "/run/netns"], check=True)
    subprocess.run(["mount", "--make-shared", "/run/netns"], check=True)


def join_network(name: str) -> None:
    """Moves the calling thread, and no other, to the network namespace of that name."""
    libc = ctypes.CDLL(None, use_errno=True)
    with open(f"/run/netns/{name}", "rb") as file:
        if libc.setns(file.fileno(), CLONE_NEWNET):
            code = ctypes.get_errno()
            raise OSError(code, f"setns {name}: {os.strerror(code)}")


if __name__ == "__main__":
    lacks = missing()
    print("; ".join(lacks))
    sys.exit(1 if lacks else 0)

#!/usr/bin/env python3
"""Plays the tutorial, and faults beyond it, on this machine. The real helm renders the chart. Nodes are
network namespaces, in each of which a containerd with CNI plugins runs the rendered pods with their limits
and seccomp profiles. A DNS server resolves their names. Only the control plane and kubectl are stand-ins.

Everything runs in namespaces of this process (sandbox.py), so an interrupted play leaves nothing on the
machine."""

import argparse
import os
import pathlib
import sys

import sandbox

CHAPTERS = ("tutorial", "variants", "monitoring", "faults")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tools", type=pathlib.Path, required=True, help="folder of the tools that .ci/e2e installed")
    parser.add_argument("--helm", type=pathlib.Path, required=True, help="folder with helm-3.17 and helm-4.3")
    parser.add_argument("--binary", type=pathlib.Path, required=True, help="a static corecached")
    parser.add_argument("--load", type=pathlib.Path, required=True, help="the binary corecached-bench")
    parser.add_argument("--only", nargs="+", choices=CHAPTERS, default=CHAPTERS, help="chapters to play")
    parser.add_argument("--match", default="", help="play only cases whose name contains this")
    parser.add_argument("--shell", action="store_true", help="play nothing, but open a shell with kubectl and helm")
    args = parser.parse_args()
    if sandbox.INSIDE not in os.environ:
        return sandbox.enter(sys.argv)
    # The fork handlers of gRPC would block children that only execute another program.
    os.environ["GRPC_ENABLE_FORK_SUPPORT"] = "false"
    from stage import Stage

    folder = pathlib.Path(os.environ.pop(sandbox.INSIDE))
    sandbox.settle(folder)
    return Stage(args, folder).play()


if __name__ == "__main__":
    sys.exit(main())

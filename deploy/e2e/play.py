#!/usr/bin/env python3
"""Plays the tutorial, and faults beyond it, on this machine: real helm renders the chart; network namespaces are nodes;
containerd with CNI plugins on each runs the rendered pods under the rendered limits and filters; a DNS server names them.
Only the control plane and kubectl are stand-ins. `--only` takes the names of chapters.

Everything lives in namespaces of this process (sandbox.py): an interrupted play leaves nothing behind."""

import argparse
import os
import pathlib
import sys

import sandbox

CHAPTERS = ("tutorial", "variants", "monitoring", "faults")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tools", type=pathlib.Path, required=True, help="what .ci/e2e installed")
    parser.add_argument("--helm", type=pathlib.Path, required=True, help="folder with helm-3.17 and helm-4.3")
    parser.add_argument("--binary", type=pathlib.Path, required=True, help="a static corecached")
    parser.add_argument("--load", type=pathlib.Path, required=True, help="corecached-bench")
    parser.add_argument("--only", nargs="+", choices=CHAPTERS, default=CHAPTERS, help="chapters to play")
    parser.add_argument("--match", default="", help="only what has this in its name")
    parser.add_argument("--shell", action="store_true", help="play nothing; open a shell with kubectl and helm")
    args = parser.parse_args()
    if sandbox.INSIDE not in os.environ:
        return sandbox.enter(sys.argv)
    # Its hooks around fork stop children that only go on to run something else.
    os.environ["GRPC_ENABLE_FORK_SUPPORT"] = "false"
    from stage import Stage

    folder = pathlib.Path(os.environ.pop(sandbox.INSIDE))
    sandbox.settle(folder)
    return Stage(args, folder).play()


if __name__ == "__main__":
    sys.exit(main())

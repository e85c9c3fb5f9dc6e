"""The images of pods: ours, and substitutes for those of the tutorial, built from programs of this
machine. No registry is used; a node has only the images below."""

import importlib.util
import os
import pathlib
import shutil
import subprocess
import sys
import sysconfig

HERE = pathlib.Path(__file__).resolve().parent
PACKER = HERE.parent / "image/build.py"

OURS, PAUSE, BUSYBOX, PYTHON = (f"localhost/{name}:e2e" for name in ("corecached", "pause", "busybox", "python"))
# Names in manifests and in the tutorial.
NAMES = {
    "corecached:0.1.0": OURS,
    "alpine": BUSYBOX,
    "alpine:3.6": BUSYBOX,
    "busybox:1.33": BUSYBOX,
    "python:3.10-alpine": PYTHON,
}
# `pip install` finds the package of the tutorial in the image itself.
PYTHON_ENVIRONMENT = [
    "PATH=/usr/local/bin:/usr/bin:/bin",
    "PIP_NO_INDEX=1",
    "PIP_FIND_LINKS=/wheels",
    "PIP_BREAK_SYSTEM_PACKAGES=1",
    "PIP_ROOT_USER_ACTION=ignore",
    "PIP_DISABLE_PIP_VERSION_CHECK=1",
]
PAUSE_SOURCE = r"""
#include <signal.h>
#include <unistd.h>
static void end(int number) { (void)number; _exit(0); }
int main(void) { signal(SIGTERM, end); signal(SIGINT, end); for (;;) pause(); }
"""


def packer():
    spec = importlib.util.spec_from_file_location("corecached_image", PACKER)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def make(folder: pathlib.Path, tools: pathlib.Path, binary: pathlib.Path) -> list[pathlib.Path]:
    """Builds all images and returns their tars. Those that are not ours are built once and kept with the tools."""
    ours = folder / "corecached.tar"
    command = [sys.executable, PACKER, "--binary", binary, "--output", ours, "--tag", OURS]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    base = tools / "images"
    if not base.exists():
        half = tools / "images.half"
        shutil.rmtree(half, ignore_errors=True)
        half.mkdir()
        pack(half, PAUSE, pause(half), {"Entrypoint": ["/pause"]})
        pack(half, BUSYBOX, busybox(half), {"Cmd": ["sh"], "Env": ["PATH=/bin"]})
        pack(half, PYTHON, python(half, tools), {"Cmd": ["python3"], "Env": PYTHON_ENVIRONMENT})
        half.rename(base)
    return [ours, *sorted(base.glob("*.tar"))]


def pack(folder: pathlib.Path, tag: str, root: pathlib.Path, config: dict) -> pathlib.Path:
    tool = packer()
    output = folder / (root.name + ".tar")
    output.write_bytes(tool.layout(tool.pack(root, 0), tag, 0, config, {}))
    shutil.rmtree(root)
    return output


def pause(folder: pathlib.Path) -> pathlib.Path:
    root = folder / "pause"
    root.mkdir()
    command = ["cc", "-static", "-O1", "-s", "-o", root / "pause", "-x", "c", "-"]
    subprocess.run(command, input=PAUSE_SOURCE, text=True, check=True)
    return root


def busybox(folder: pathlib.Path) -> pathlib.Path:
    root = folder / "busybox"
    (root / "bin").mkdir(parents=True)
    (root / "tmp").mkdir()
    (root / "etc").mkdir()
    shutil.copy2(shutil.which("busybox"), root / "bin/busybox")
    listed = subprocess.run([root / "bin/busybox", "--list"], capture_output=True, text=True, check=True)
    for applet in listed.stdout.split():
        if not (root / "bin" / applet).exists():
            (root / "bin" / applet).symlink_to("busybox")
    (root / "etc/passwd").write_text("root:x:0:0:root:/:/bin/sh\n")
    return root


def libraries(files) -> set[str]:
    """The shared libraries that these files need."""
    listed = subprocess.run(["ldd", *files], capture_output=True, text=True, check=False).stdout
    return {word for line in listed.splitlines() for word in line.split() if word.startswith("/") and not word.endswith(":")}


def python(folder: pathlib.Path, tools: pathlib.Path) -> pathlib.Path:
    """Python of this machine, with pip and the wheel of pymemcache."""
    root = folder / "python"
    name = f"python{sys.version_info.major}.{sys.version_info.minor}"
    binary, library = pathlib.Path(os.path.realpath(sys.executable)), pathlib.Path(sysconfig.get_path("stdlib"))
    shutil.copytree(
        library, f"{root}{library}", symlinks=True,
        ignore=shutil.ignore_patterns("test", "__pycache__", "config-*", "idlelib", "tkinter", "site-packages", "dist-packages"),
    )  # fmt: skip
    (root / "usr/bin").mkdir(parents=True, exist_ok=True)
    shutil.copy2(binary, root / "usr/bin" / name)
    for link in ("python", "python3"):
        (root / "usr/bin" / link).symlink_to(name)
    shutil.copytree(tools / "pip", root / f"usr/local/lib/{name}/dist-packages/pip")
    shutil.copytree(tools / "wheels", root / "wheels")
    extensions = library.glob("lib-dynload/*.so")
    for path in libraries([binary, *extensions]):
        target = pathlib.Path(f"{root}{path}")
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(os.path.realpath(path), target)
        target.chmod(0o755)
    (root / "usr/local/bin").mkdir(parents=True)
    pip = root / "usr/local/bin/pip"
    pip.write_text(f"#!/usr/bin/{name}\nimport sys\nfrom pip._internal.cli.main import main\nsys.exit(main())\n")
    pip.chmod(0o755)
    shell = root / "bin"
    shell.mkdir(exist_ok=True)
    shutil.copy2(shutil.which("busybox"), shell / "busybox")
    (shell / "sh").symlink_to("busybox")
    (root / "tmp").mkdir()
    return root


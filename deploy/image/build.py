#!/usr/bin/env python3
"""Packs a static corecached binary into an OCI image, as a tar of an OCI layout. It needs no registry, no
daemon and no root.

    deploy/image/build-static.sh                      # target/x86_64-unknown-linux-gnu/release/corecached
    deploy/image/build.py --binary PATH --output corecached.tar [--tag NAME:TAG]

The same binary gives the same bytes. Load it with `ctr image import`, `podman load`, `skopeo copy
oci-archive:...`.
"""

import argparse
import gzip
import hashlib
import io
import json
import os
import pathlib
import subprocess
import sys
import tarfile
import tempfile

HERE = pathlib.Path(__file__).resolve().parent
BIN = "/usr/local/bin/corecached"
USER = "65532:65532"


def encode(value) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()


def pack(root: pathlib.Path, epoch: int) -> bytes:
    """Packs `root` as a tar that does not depend on the user, the machine or the time of the build."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for path in sorted(root.rglob("*")):
            info = tar.gettarinfo(path, arcname=str(path.relative_to(root)))
            info.uid = info.gid = 0
            info.uname = info.gname = ""
            info.mtime = epoch
            info.mode = 0o777 if info.issym() else 0o755 if info.isdir() or os.access(path, os.X_OK) else 0o644
            if info.isreg():
                with path.open("rb") as file:
                    tar.addfile(info, file)
            else:
                tar.addfile(info)
    return out.getvalue()


def refuse_dynamic(binary: pathlib.Path) -> None:
    """Exits if the binary needs a dynamic loader: the image has none, so the binary would not start."""
    head = binary.read_bytes()[:1 << 16]
    if not head.startswith(b"\x7fELF"):
        sys.exit(f"{binary}: not an ELF file; give a static corecached (deploy/image/build-static.sh)")
    if b"/ld-linux" in head or b"/ld-musl" in head:
        sys.exit(f"{binary}: not static; build it with -C target-feature=+crt-static (deploy/image/build-static.sh)")


def layout(layer: bytes, tag: str, epoch: int, config: dict, labels: dict) -> bytes:
    """Returns the tar of an OCI layout with one image of one layer and the container configuration
    `config`."""
    packed = gzip.compress(layer, compresslevel=6, mtime=0)
    blobs = {}

    def blob(content: bytes, media_type: str, **more) -> dict:
        digest = hashlib.sha256(content).hexdigest()
        blobs[digest] = content
        return {"mediaType": media_type, "digest": f"sha256:{digest}", "size": len(content), **more}

    platform = {"architecture": "amd64", "os": "linux"}
    described = blob(
        encode(
            {
                **platform,
                "config": config,
                "rootfs": {"type": "layers", "diff_ids": [f"sha256:{hashlib.sha256(layer).hexdigest()}"]},
            }
        ),
        "application/vnd.oci.image.config.v1+json",
    )
    manifest_type = "application/vnd.oci.image.manifest.v1+json"
    manifest = blob(
        encode(
            {
                "schemaVersion": 2,
                "mediaType": manifest_type,
                "config": described,
                "layers": [blob(packed, "application/vnd.oci.image.layer.v1.tar+gzip")],
                "annotations": labels,
            }
        ),
        manifest_type,
        platform=platform,
        annotations={"org.opencontainers.image.ref.name": tag.rpartition(":")[2], "io.containerd.image.name": tag},
    )
    index = {"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": [manifest]}
    files = {f"blobs/sha256/{digest}": content for digest, content in blobs.items()}
    files["index.json"] = encode(index)
    files["oci-layout"] = encode({"imageLayoutVersion": "1.0.0"})
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name, content in sorted(files.items()):
            info = tarfile.TarInfo(name)
            info.size, info.mtime, info.mode = len(content), epoch, 0o644
            tar.addfile(info, io.BytesIO(content))
    return out.getvalue()


def image(binary: pathlib.Path, tag: str, epoch: int, version: str) -> bytes:
    """Returns the bytes of the image's tar."""
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([HERE / "rootfs.sh", binary, folder], check=True)
        layer = pack(pathlib.Path(folder), epoch)
    labels = {
        "org.opencontainers.image.title": "corecached",
        "org.opencontainers.image.description": "A memcached-compatible cache and mcrouter-compatible proxy",
        "org.opencontainers.image.licenses": "Apache-2.0",
        "org.opencontainers.image.version": version,
    }
    config = {
        "User": USER,
        "Env": ["PATH=/usr/local/bin"],
        "Entrypoint": [BIN],
        "ExposedPorts": {"11211/tcp": {}, "5000/tcp": {}, "9150/tcp": {}},
        "Labels": labels,
        "StopSignal": "SIGTERM",
        # An extension of Docker, which the OCI specification permits.
        "Healthcheck": {"Test": ["CMD", BIN, "healthcheck"], "Interval": 10_000_000_000},
    }
    return layout(layer, tag, epoch, config, labels)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--binary", type=pathlib.Path, required=True, help="a static corecached")
    parser.add_argument("--output", type=pathlib.Path, required=True, help="the tar to write")
    parser.add_argument("--tag", default="localhost/corecached:0.1.0", help="full name of the image")
    args = parser.parse_args()
    if not args.binary.is_file():
        sys.exit(f"--binary {args.binary}: no such file; build it with deploy/image/build-static.sh")
    refuse_dynamic(args.binary)
    # The convention of reproducible builds for the time of all files in the image.
    epoch = int(os.environ.get("SOURCE_DATE_EPOCH", "0"))
    content = image(args.binary, args.tag, epoch, args.tag.rpartition(":")[2])
    args.output.write_bytes(content)
    print(f"{args.output} {len(content)} bytes sha256:{hashlib.sha256(content).hexdigest()}")


if __name__ == "__main__":
    main()

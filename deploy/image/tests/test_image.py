"""Tests of how the image is packed. The binary in it is never run."""

import gzip
import hashlib
import io
import json
import os
import pathlib
import subprocess
import sys
import tarfile

import pytest

IMAGE = pathlib.Path(__file__).resolve().parents[1]
TAG = "localhost/corecached:test"
# The start of an ELF file that names no loader, which is all that the packer checks.
STATIC = b"\x7fELF" + b"\0" * 100


def build(folder, content=STATIC, **environment):
    binary, output = folder / "binary", folder / "image.tar"
    binary.write_bytes(content)
    binary.chmod(0o700)
    command = [sys.executable, IMAGE / "build.py", "--binary", binary, "--output", output, "--tag", TAG]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **environment})
    return done, output


def blobs(output):
    """Files of the layout, by name."""
    with tarfile.open(output) as tar:
        return {member.name: tar.extractfile(member).read() for member in tar.getmembers()}


def parts(output):
    """Manifest, configuration and the layer's tar."""
    files = blobs(output)

    def blob(descriptor):
        content = files["blobs/sha256/" + descriptor["digest"].removeprefix("sha256:")]
        assert len(content) == descriptor["size"]
        assert "sha256:" + hashlib.sha256(content).hexdigest() == descriptor["digest"]
        return content

    manifest = json.loads(blob(json.loads(files["index.json"])["manifests"][0]))
    return manifest, json.loads(blob(manifest["config"])), gzip.decompress(blob(manifest["layers"][0]))


def test_the_same_binary_gives_the_same_bytes(tmp_path):
    made = []
    for name in ("one", "two"):
        folder = tmp_path / name
        folder.mkdir()
        done, output = build(folder)
        assert done.returncode == 0, done.stderr
        made.append(output.read_bytes())
    assert made[0] == made[1]


def test_the_time_in_it_is_the_one_asked_for(tmp_path):
    done, output = build(tmp_path, SOURCE_DATE_EPOCH="86400")
    assert done.returncode == 0, done.stderr
    with tarfile.open(fileobj=io.BytesIO(parts(output)[2])) as layer:
        assert {member.mtime for member in layer.getmembers()} == {86400}


def test_it_runs_as_nobody_in_particular_and_answers_to_all_names(tmp_path):
    done, output = build(tmp_path)
    assert done.returncode == 0, done.stderr
    _, config, layer = parts(output)
    assert config["rootfs"]["diff_ids"] == ["sha256:" + hashlib.sha256(layer).hexdigest()]
    assert config["config"]["User"] == "65532:65532"
    assert config["config"]["Entrypoint"] == ["/usr/local/bin/corecached"]
    with tarfile.open(fileobj=io.BytesIO(layer)) as tar:
        members = {member.name: member for member in tar.getmembers()}
    assert members["usr/local/bin/corecached"].mode == 0o755
    for name in ("memcached", "mcrouter"):
        assert members[f"usr/local/bin/{name}"].linkname == "corecached"
    assert {(member.uid, member.gid) for member in members.values()} == {(0, 0)}


def test_the_dockerfile_says_the_same(tmp_path):
    done, output = build(tmp_path)
    assert done.returncode == 0, done.stderr
    config = parts(output)[1]["config"]
    lines = (IMAGE.parent / "Dockerfile").read_text().splitlines()
    last = [line.split(None, 1) for line in lines[lines.index("FROM scratch") :] if line[:1].isupper()]
    said = dict(last)
    assert said["USER"] == config["User"]
    assert json.loads(said["ENTRYPOINT"]) == config["Entrypoint"]
    assert said["ENV"] == config["Env"][0]
    assert {f"{port}/tcp" for port in said["EXPOSE"].split()} == set(config["ExposedPorts"])
    assert said["STOPSIGNAL"] == config["StopSignal"]
    assert json.loads(said["HEALTHCHECK"].split("CMD ")[1]) == config["Healthcheck"]["Test"][1:]


@pytest.mark.parametrize(
    "content", [b"#!/bin/sh\n", STATIC + b"/lib64/ld-linux-x86-64.so.2\0"], ids=["a script", "needs a loader"]
)
def test_what_would_not_start_in_an_empty_image_is_refused(tmp_path, content):
    done, output = build(tmp_path, content)
    assert done.returncode != 0
    assert "static" in done.stderr and str(tmp_path) in done.stderr
    assert not output.exists()

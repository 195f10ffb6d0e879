"""Fetch the viewers of the documentation pages from npm into the package, and write down what was taken.

Swagger UI (Apache-2.0) and ReDoc (MIT), unchanged but for one image that ReDoc would load from another
host. Run it to move to newer versions: ``python scripts/vendor_apidocs.py``, with npm installed.
"""

from __future__ import annotations

import hashlib
import subprocess
import tarfile
import tempfile
from pathlib import Path

ASSETS = Path(__file__).resolve().parent.parent / "src/fitserve/apidocs/assets"
SWAGGER, REDOC = "swagger-ui-dist@5.35.0", "redoc@2.5.4"

FILES = {
    "swagger-ui-bundle.js": (SWAGGER, "package/swagger-ui-bundle.js"),
    "swagger-ui.css": (SWAGGER, "package/swagger-ui.css"),
    "favicon.png": (SWAGGER, "package/favicon-32x32.png"),
    "redoc.standalone.js": (REDOC, "package/bundles/redoc.standalone.js"),
}
LICENSES = {
    "swagger-ui.LICENSE": (SWAGGER, ("LICENSE", "NOTICE", "swagger-ui-bundle.js.LICENSE.txt")),
    "redoc.LICENSE": (REDOC, ("LICENSE", "bundles/redoc.standalone.js.LICENSE.txt")),
}
LOGO = b"https://cdn.redoc.ly/redoc/logo-mini.svg"
NO_IMAGE = b"data:,"


def main() -> None:
    """Replace the files of ``apidocs/assets`` and their list."""
    packages = {name: _fetch(name) for name in (SWAGGER, REDOC)}
    lines = ["# Made by scripts/vendor_apidocs.py: where each file comes from, and its sha256."]
    for file, (package, member) in FILES.items():
        data = packages[package][member].replace(LOGO, NO_IMAGE)
        (ASSETS / file).write_bytes(data)
        lines += ["", f'["{file}"]', f'package = "{package}"', f'sha256 = "{hashlib.sha256(data).hexdigest()}"']
    for file, (package, members) in LICENSES.items():
        (ASSETS / file).write_bytes(b"\n".join(packages[package][f"package/{member}"] for member in members))
    (ASSETS / "vendored.toml").write_text("\n".join(lines) + "\n")


def _fetch(package: str) -> dict[str, bytes]:
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(["npm", "pack", "--silent", package], check=True, cwd=folder, stdout=subprocess.DEVNULL)  # noqa: S607
        with tarfile.open(next(Path(folder).glob("*.tgz"))) as archive:
            wanted = [member for member in archive if member.isfile()]
            return {member.name: file.read() for member in wanted if (file := archive.extractfile(member))}


if __name__ == "__main__":
    main()

"""Write requirements/*.txt: every dependency pinned, with the hashes of its files, naming no registry.

``core`` is what ``pip install fitserve`` needs, ``all`` adds every extra, ``dev`` the tools of this repository.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LOCKS = {"core": [], "all": ["--extra", "all"], "dev": ["--extra", "all", "--group", "dev"]}


def main() -> None:
    """Resolve each set for all platforms and Python 3.11 or newer."""
    for name, chosen in LOCKS.items():
        target = Path("requirements") / f"{name}.txt"
        command = [
            sys.executable, "-m", "uv", "pip", "compile", "--quiet", "--upgrade", "--universal",
            "--python-version", "3.11", "--generate-hashes", "--no-header", "--no-emit-index-url",
            "--no-emit-find-links", "--no-annotate", *chosen, "pyproject.toml", "-o", str(target),
        ]  # fmt: skip
        subprocess.run(command, check=True, cwd=ROOT)
        print(
            f"{target}: {sum(not line.startswith(' ') for line in (ROOT / target).read_text().splitlines())} packages"
        )


if __name__ == "__main__":
    main()

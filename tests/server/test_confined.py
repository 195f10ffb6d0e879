"""What a serving process may write besides its own folder, and its children may not."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap

import pytest

from fitserve.confine.landlock import landlock_abi

TASK = """
    from pathlib import Path

    def write(request, blobs):
        try:
            Path(request["file"]).write_text("x")
        except OSError as exc:
            return {"outcome": type(exc).__name__}
        return {"outcome": "written"}
"""

SCRIPT = """
    import json, sys, tempfile
    from pathlib import Path
    from fitserve.confine.child import shared_template
    from fitserve.server.confined import confined
    from fitserve.settings import Settings
    from task import write

    shared, other = Path(sys.argv[1]), Path(sys.argv[2])
    with confined(Settings(optimize="off"), writable=(shared,)):
        files = {"shared": shared / "mine", "other": other / "mine", "own": Path(tempfile.gettempdir()) / "mine"}
        mine = {name: write({"file": str(file)}, [])["outcome"] for name, file in files.items()}
        child = shared_template().run("task:write", {"file": str(shared / "child")}, deadline_s=30)["outcome"]
        print(json.dumps([mine, child]))
"""


@pytest.mark.skipif(landlock_abi()[0] is None, reason="this kernel has no Landlock")
def test_it_may_write_into_a_folder_that_its_caller_gives_and_its_children_may_not(tmp_path):
    shared, other = tmp_path / "shared", tmp_path / "other"
    shared.mkdir()
    other.mkdir()
    (tmp_path / "task.py").write_text(textwrap.dedent(TASK))
    (tmp_path / "main.py").write_text(textwrap.dedent(SCRIPT))

    command = [sys.executable, tmp_path / "main.py", shared, other]
    run = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, cwd=tmp_path)

    assert run.returncode == 0, run.stderr
    mine, child = json.loads(run.stdout)
    assert mine == {"shared": "written", "other": "PermissionError", "own": "written"}
    assert child == "PermissionError"


def test_it_is_imported_without_a_numeric_library_whose_threads_would_not_be_confined():
    loaded = subprocess.run(
        [sys.executable, "-c", "import fitserve.server.confined, sys; print('numpy' in sys.modules)"],
        capture_output=True,
        check=True,
        text=True,
    )

    assert loaded.stdout == "False\n"

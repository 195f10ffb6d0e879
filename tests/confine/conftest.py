"""One template for all tests of this folder, and what stands in for a stranger."""

from __future__ import annotations

import subprocess
import sys

import pytest

from fitserve.confine.child import Template


@pytest.fixture(scope="session")
def template():
    with Template(("ctypes",)) as template:
        yield template


@pytest.fixture
def attempt(template):
    """Try one of ``tasks.ACTIONS`` in a child, in a sandbox."""

    def run(what: str, *, deadline_s: float = 20, **request: object) -> dict:
        return template.run("confine.tasks:attempt", {"what": what, **request}, deadline_s=deadline_s)

    return run


@pytest.fixture(scope="session")
def stranger():
    """The process id of a program that is none of the sandbox's business."""
    with subprocess.Popen([sys.executable, "-c", "import signal; signal.pause()"]) as process:
        yield process.pid
        process.kill()

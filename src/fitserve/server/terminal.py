"""Whether a hang-up means that somebody closed the terminal, or asks for a reload."""

from __future__ import annotations

import os


def has_terminal() -> bool:
    """Whether this process has a controlling terminal; it loses it when the terminal is closed.

    Source: https://man7.org/linux/man-pages/man4/tty.4.html
    """
    try:
        os.close(os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY))
    except OSError:
        return False
    return True

"""A version answers calls like those that its predecessor had of late, before it serves: so nobody waits for them.

What is allocated, compiled or paged in by a first call of some size is so by then.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from fitserve.store.made_rows import self_made_rows

if TYPE_CHECKING:
    from collections.abc import Collection

    from fitserve.store.catalog import LoadedModel

MOST_SHAPES = 8

MOST_S = 1.0
"""A call that is expected to take longer is not made for practice: all members make it at the same time."""


def shapes_of(loaded: LoadedModel | None) -> list[int]:
    """How many rows the calls of a version had of late: each number once, at most :data:`MOST_SHAPES`."""
    if loaded is None:
        return []
    seen = {n_rows for form in loaded.forms.all for n_rows in form.cost.recent_rows}
    return sorted(seen)[-MOST_SHAPES:]


def warm_up(loaded: LoadedModel, shapes: Collection[int]) -> None:
    """Have each form of a version answer tables of so many rows. Blocks. What it answers is not looked at.

    A form that raises on made-up rows is left alone: the trial has said already whether the version answers.
    """
    signature = loaded.model.signature
    rows = self_made_rows(signature)
    if not rows:
        return
    for n_rows in shapes:
        with contextlib.suppress(Exception, SystemExit):
            inputs = signature.check([rows[i % len(rows)] for i in range(n_rows)])
            for form in loaded.forms.all:
                if form.cost.expected_s(n_rows) < MOST_S:
                    form.predict(inputs, ())

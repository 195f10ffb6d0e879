"""What a call of a model costs, as fixed + per_row · n_rows, learnt from the calls. Pure."""

from __future__ import annotations


class Cost:
    """A running estimate of the seconds that a call takes.

    Normalised least mean squares: each call moves the estimate by a tenth of its error. A call
    counts as at most four times what was expected, so that a moment in which the machine was
    elsewhere changes little, while a model that became slow is noticed within a few calls.
    Not thread-safe: told on the event loop.
    """

    _SCALE_ROWS = 64.0
    _STEP = 0.1
    _LARGEST_SURPRISE = 4.0
    _RESOLUTION_S = 1e-5

    def __init__(self, fixed_s: float = 0.0, per_row_s: float = 0.0) -> None:
        self.fixed_s = fixed_s
        self.per_row_s = per_row_s

    def expected_s(self, n_rows: int) -> float:
        """Return the seconds that a call with ``n_rows`` rows is expected to take."""
        return self.fixed_s + self.per_row_s * n_rows

    def learn(self, n_rows: int, seconds: float) -> None:
        """Take a call into account."""
        expected = self.expected_s(n_rows)
        counted = min(seconds, self._LARGEST_SURPRISE * (expected + self._RESOLUTION_S))
        x = n_rows / self._SCALE_ROWS
        change = self._STEP * (counted - expected) / (1.0 + x * x)
        self.fixed_s = max(0.0, self.fixed_s + change)
        self.per_row_s = max(0.0, self.per_row_s + change * x / self._SCALE_ROWS)

"""What a call of a model costs, as fixed + per_row · n_rows, learnt from the calls. Pure."""

from __future__ import annotations

from collections import deque


class Cost:
    """A running estimate of the seconds that a call takes.

    A line through the calls by weighted least squares, in coordinates around their weighted mean, where its
    height and its slope are learnt independently. Older calls count less, by a twentieth each time, and dear
    ones less than cheap ones, for their noise is larger. A line that is given counts as three calls.

    A call counts as at most four times what was expected, so that a moment in which the machine was elsewhere
    changes little, while a model that became slow is noticed within a few calls.
    Not thread-safe: told on the event loop.

    Attributes:
        fixed_s: of a call, however many rows it has.
        per_row_s: of each row. Both may be set to what was measured later.
        recent_rows: how many rows the last calls had that were learnt from.
    """

    __slots__ = ("_mean_rows", "_variance", "_weight", "fixed_s", "per_row_s", "recent_rows")

    _RECENT = 64
    _FORGET = 0.05
    _START = 3.0
    _LARGEST_SURPRISE = 4.0
    _RESOLUTION_S = 1e-5
    _LEAST_VARIANCE = 1.0  # calls that hardly differ in rows tell nothing of the slope

    def __init__(self, fixed_s: float = 0.0, per_row_s: float = 0.0) -> None:
        self.fixed_s = fixed_s
        self.per_row_s = per_row_s
        self.recent_rows: deque[int] = deque(maxlen=self._RECENT)
        many = 64 if per_row_s else 4  # else it was not measured with many, and is soon corrected
        one_weight, many_weight = (1 / (self.expected_s(n_rows) + self._RESOLUTION_S) for n_rows in (1, many))
        total = one_weight + many_weight
        self._weight = self._START * total / 2 if fixed_s or per_row_s else 0.0
        self._mean_rows = mean = (one_weight + many * many_weight) / total
        self._variance = (one_weight * (mean - 1) ** 2 + many_weight * (many - mean) ** 2) / total

    def expected_s(self, n_rows: int) -> float:
        """Return the seconds that a call with ``n_rows`` rows is expected to take."""
        return self.fixed_s + self.per_row_s * n_rows

    def learn(self, n_rows: int, seconds: float) -> None:
        """Take a call into account."""
        self.recent_rows.append(n_rows)
        expected = self.fixed_s + self.per_row_s * n_rows
        weight = 1 / (expected + self._RESOLUTION_S)
        largest = self._LARGEST_SURPRISE * (expected + self._RESOLUTION_S)
        counted = min(seconds, largest) if self._weight else seconds  # the first that is known counts whole
        self._weight = total = self._weight * (1 - self._FORGET) + weight
        share = weight / total
        mean = self._mean_rows
        distance = n_rows - mean
        # The line goes through the mean of the calls.
        mean_s = self.fixed_s + self.per_row_s * mean
        mean_s += share * (counted - mean_s)
        self._mean_rows = mean = mean + share * distance
        pull = (1 - share) * share * distance
        self._variance = variance = max((1 - share) * self._variance + pull * distance, self._LEAST_VARIANCE)
        slope = max(0.0, self.per_row_s + pull * (counted - expected) / variance)
        height = mean_s - slope * mean
        if height < 0:
            height, slope = 0.0, mean_s / mean
        self.fixed_s, self.per_row_s = height, slope

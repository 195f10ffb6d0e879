"""One opened cache of each kind, for the suite that runs over all. A new backend needs a line here."""

from __future__ import annotations

from fitserve.cache import open_cache


class Clock:
    """Monotonic seconds that pass when told."""

    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


OPENED = {
    "memory": lambda clock: open_cache("memory://?max_bytes=1000000&ttl_s=10", clock=clock),
}
"""By scheme: a cache whose rows live for 10 s by the clock, with a place for a thousand small rows at least."""

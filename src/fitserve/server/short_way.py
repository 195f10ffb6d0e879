"""What the application gives to those who answer without ASGI."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from fitserve.observe.metrics import Metrics
    from fitserve.protocols.exchange import Exchange
    from fitserve.server.heads import Heads
    from fitserve.store.catalog import Catalog


class ShortWay:
    """What the application gives to those who answer without ASGI. Used from its event loop.

    Attributes:
        heads: knows the requests that may go the short way.
        known_heads: those that it has seen, to be asked first.
        catalog: names the version that serves.
        metrics: are told of each exchange when it begins.
        observe: is told of each exchange when its reply has been written.
        is_debug: whether replies show the text of faults.
    """

    __slots__ = ("catalog", "heads", "is_debug", "known_heads", "metrics", "observe")

    def __init__(
        self, heads: Heads, catalog: Catalog, metrics: Metrics, observe: Callable[[Exchange], None], *, is_debug: bool
    ) -> None:
        self.heads = heads
        self.known_heads = heads.known
        self.catalog = catalog
        self.metrics = metrics
        self.observe = observe
        self.is_debug = is_debug

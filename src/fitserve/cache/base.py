"""What a place for rows is: a backend of the cache, and what it promises."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from urllib.parse import SplitResult


class RowCache(Protocol):
    """Bytes by key, for a while. Used from event loops; nothing here blocks them.

    Keys are 16 bytes; values are never changed. Whoever asks must be content with a None for
    whatever was set: a row may be dropped at any time, and a backend at fault has none.
    """

    def get_many(self, keys: Sequence[bytes], then: Callable[[list[bytes | None]], None]) -> None:
        """Look rows up and give them to ``then``, in the order of the keys, None for each that is not there.

        ``then`` is called once, on the event loop: before this returns, or later by a backend that has to wait.
        Never raises, but what ``then`` raises.
        """

    def set_many(self, rows: Mapping[bytes, bytes]) -> None:
        """Keep rows, where there is a place for them. Returns at once and never raises."""

    def statistics(self) -> dict[str, int]:
        """``entries`` and ``bytes`` that are held; how many rows were ``evicted`` and ``expired`` so far."""


@dataclass(frozen=True, slots=True)
class CacheBackend:
    """One kind of place for rows.

    Attributes:
        schemes: of the URLs that name it.
        open: from the parts of such a URL, its options and a monotonic clock (seconds) to a cache, without
            connecting to anything; raises :class:`~fitserve.errors.SettingsError` for what it does not know.
    """

    schemes: tuple[str, ...]
    open: Callable[[SplitResult, Mapping[str, str], Callable[[], float]], RowCache]

"""The row cache: keys, rows as bytes, and where they are kept. One file is one backend: it exports ``CACHE``."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl, urlsplit

from fitserve.cache.base import CacheBackend
from fitserve.errors import SettingsError, clip, did_you_mean
from fitserve.plugins import discover

if TYPE_CHECKING:
    from collections.abc import Callable

    from fitserve.cache.base import RowCache


def open_cache(url: str, *, clock: Callable[[], float] = time.monotonic) -> RowCache | None:
    """Open the cache that the setting ``cache`` names; None where it is empty, which is off.

    Args:
        url: such as ``memory://?max_bytes=67108864&ttl_s=300``.
        clock: monotonic seconds; tells the age of a row.

    Raises:
        SettingsError: its scheme or an option is unknown, or the value of one is out of bounds.
    """
    if not url:
        return None
    backends = {scheme: one for one in discover(sys.modules[__name__], CacheBackend, "CACHE") for scheme in one.schemes}
    scheme, separator, _ = url.partition("://")
    if not separator or scheme not in backends:
        known = ", ".join(f"{one}://" for one in backends)
        hint = did_you_mean(scheme, backends)
        msg = f"cache: {clip(url)!r} is of no kind that is known here ({known})"
        raise SettingsError(f"{msg}; {hint}" if hint else msg)
    try:
        parts = urlsplit(url)
        pairs = parse_qsl(parts.query, keep_blank_values=True, strict_parsing=bool(parts.query))
    except ValueError as exc:
        msg = f"cache: {clip(url)!r} is no URL: wanted one such as memory://?max_bytes=67108864&ttl_s=300"
        raise SettingsError(msg) from exc
    options = dict(pairs)
    if len(options) < len(pairs):
        msg = f"cache: {clip(url)!r} gives an option twice"
        raise SettingsError(msg)
    return backends[scheme].open(parts, options, clock)

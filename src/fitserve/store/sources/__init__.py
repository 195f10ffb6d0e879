"""Places from which models are fetched. One file is one kind of place: it exports ``SOURCE``."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from fitserve.errors import SettingsError, did_you_mean
from fitserve.plugins import discover
from fitserve.store.sources.base import Source

if TYPE_CHECKING:
    from fitserve.store.sources.base import Remote
    from fitserve.urls import SourceUrl


def open_source(url: SourceUrl) -> Remote:
    """Open the place that a URL names; nothing is asked of it yet.

    Raises:
        SettingsError: no source knows its scheme, its library is not installed, or it is no such URL.
    """
    sources = {scheme: one for one in discover(sys.modules[__name__], Source, "SOURCE") for scheme in one.schemes}
    if url.scheme not in sources:
        hint = did_you_mean(url.scheme, sources)
        msg = f"model_path: {url} is of no kind that is known here ({', '.join(f'{one}:' for one in sources)})"
        raise SettingsError(f"{msg}; {hint}" if hint else msg)
    return sources[url.scheme].open(url)

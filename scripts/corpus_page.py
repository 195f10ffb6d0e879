"""Print the second half of docs/reference/supported-estimators.md: what is served, and what is not, by the corpus.

``scripts/survey_estimators.py --write`` puts it on the page; ``.venv/bin/python scripts/corpus_page.py`` shows it.
It fits nothing: that the lists are true is what tests/estimators/test_corpus.py shows.
"""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path

TESTS = Path(__file__).resolve().parents[1] / "tests"

EXPERIMENTAL = {"HalvingGridSearchCV", "HalvingRandomSearchCV", "IterativeImputer"}
"""Whether ``all_estimators()`` gives these hangs on what has been imported before: not counted."""

TEXT = """\
## What is served and compared

Besides, {n_served} fitted models are served without a word of code, each asked for 50 rows as JSON records and for
every output that it has, and compared with what the library itself answers (`tests/estimators/test_corpus.py`).
Labels are equal; numbers are equal to 1e-12, those of native boosters bit for bit.

| | models |
|---|---|
| estimators of scikit-learn by themselves, with labels of each type | {n_plain} |
| pipelines over tables of numbers, texts, booleans, dates, categories and nulls; searches, votes, stacks | {n_tables} |
| gradient boosting: histograms, and the wrappers of LightGBM, XGBoost and CatBoost, in pipelines too | {n_boosted} |
| native boosters of LightGBM and XGBoost | {n_native} |

These {n_unsupported} estimators of scikit-learn load, and are not served by themselves. Inside a pipeline that predicts
they may well be:

| estimator | reason |
|---|---|
{rows}
"""


def corpus_section() -> str:
    """Return the section."""
    if str(TESTS) not in sys.path:
        sys.path.append(str(TESTS))
    plain, pipelines, boosters = (
        import_module(f"estimators.corpus_{name}") for name in ("plain", "pipelines", "boosters")
    )
    by_reason: dict[str, list[str]] = {}
    for name, reason in plain.UNSUPPORTED.items():
        by_reason.setdefault(reason, []).append(f"`{name}`")
    counts = {
        "n_plain": len(set(plain.PLAIN) - set(plain.UNSUPPORTED) - EXPERIMENTAL),
        "n_tables": len(pipelines.TABLES),
        "n_boosted": len(boosters.BOOSTED),
        "n_native": len(boosters.NATIVE),
    }
    return TEXT.format(
        **counts,
        n_served=sum(counts.values()),
        n_unsupported=len(plain.UNSUPPORTED),
        rows="\n".join(f"| {', '.join(names)} | {reason} |" for reason, names in by_reason.items()),
    )


if __name__ == "__main__":
    print(corpus_section(), end="")

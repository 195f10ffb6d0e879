"""Models that do wrong, in a module that another process can import."""

from __future__ import annotations

from sklearn.linear_model import LogisticRegression


class FailsItsRow(LogisticRegression):
    """Raises whatever it is asked, with a secret in its text."""

    def predict_proba(self, X):
        msg = "db postgres://svc:hunter2@db"
        raise RuntimeError(msg)


STOPPED: list[str] = []
"""The versions of models with a pool that have been told to stop, in this process."""

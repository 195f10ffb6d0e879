"""Which models there are, and which version answers."""

PRELOAD = (
    "fitserve.store.verify", "joblib", "numpy", "scipy.sparse", "sklearn.ensemble", "sklearn.linear_model",
    "sklearn.pipeline", "sklearn.compose", "fitserve.estimators.model",
)  # fmt: skip
"""What the process that forks children imports ahead: what most models need, and nothing that starts threads."""

"""The other side of the comparison: the model server that people write by hand with FastAPI.

It does what such a file usually does for one request, in current FastAPI and pydantic: a body of
pydantic type whose numbers are looked at one by one, a coroutine that calls the model twice, a
response model, a decorated middleware that times and logs, CORS for everybody. It is meant to be
ordinary, neither slowed down nor tuned.

    MODEL_PATH=iris_v1.0.0.joblib uvicorn --app-dir bench/baseline server:app
"""

import time
from datetime import datetime
from typing import Annotated

import numpy as np
from common import Prediction, app, logger, served
from fastapi import HTTPException
from pydantic import BaseModel, Field, field_validator

__all__ = ["app"]


class Row(BaseModel):
    features: Annotated[list[float], Field(min_length=1, max_length=100)]
    model_version: str | None = None

    @field_validator("features")
    @classmethod
    def are_finite(cls, values: list[float]) -> list[float]:
        if not all(np.isfinite(value) for value in values):
            msg = "every feature must be finite"
            raise ValueError(msg)
        return values


class Rows(BaseModel):
    instances: Annotated[list[list[float]], Field(min_length=1, max_length=1000)]

    @field_validator("instances")
    @classmethod
    def are_equally_long(cls, rows: list[list[float]]) -> list[list[float]]:
        if any(len(row) != len(rows[0]) for row in rows):
            msg = "every instance must have as many features as the first"
            raise ValueError(msg)
        return rows


@app.post("/predict", response_model=Prediction)
async def predict(row: Row):
    started = time.time()
    try:
        X = np.array(row.features).reshape(1, -1)
        label = float(served.model.predict(X)[0])
        probability = None
        if hasattr(served.model, "predict_proba"):
            probability = float(served.model.predict_proba(X)[0].max())
    except ValueError as exc:
        logger.exception("the model refused a row")
        raise HTTPException(422, f"these features do not fit: {exc}") from exc
    took_ms = (time.time() - started) * 1000
    logger.info(f"predicted {label} in {took_ms:.2f} ms")
    return Prediction(prediction=label, probability=probability, model_version=served.version, latency_ms=took_ms)


@app.post("/predict/batch")
async def predict_batch(rows: Rows):
    started = time.time()
    try:
        X = np.array(rows.instances)
        labels = served.model.predict(X).tolist()
        probabilities = None
        if hasattr(served.model, "predict_proba"):
            probabilities = served.model.predict_proba(X).max(axis=1).tolist()
    except ValueError as exc:
        logger.exception("the model refused a batch")
        raise HTTPException(422, f"these instances do not fit: {exc}") from exc
    took_ms = (time.time() - started) * 1000
    logger.info(f"predicted {len(labels)} rows in {took_ms:.2f} ms")
    return {
        "predictions": labels,
        "probabilities": probabilities,
        "model_version": served.version,
        "latency_ms": took_ms,
        "count": len(labels),
        "timestamp": datetime.now(),  # noqa: DTZ005 - as people write it
    }

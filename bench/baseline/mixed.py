"""The hand-rolled server for a model of named columns, some of them strings: a row becomes a DataFrame.

MODEL_PATH=mixed_v1.0.0.joblib uvicorn --app-dir bench/baseline mixed:app
"""

import time
from typing import Annotated

import numpy as np
import pandas as pd
from common import Prediction, app, logger, served
from fastapi import HTTPException
from pydantic import BaseModel, Field, field_validator

__all__ = ["app"]


class NamedRow(BaseModel):
    features: Annotated[dict[str, float | str], Field(min_length=1, max_length=100)]
    model_version: str | None = None

    @field_validator("features")
    @classmethod
    def are_finite(cls, values: dict[str, float | str]) -> dict[str, float | str]:
        if not all(np.isfinite(value) for value in values.values() if isinstance(value, float)):
            msg = "every number must be finite"
            raise ValueError(msg)
        return values


@app.post("/predict", response_model=Prediction)
async def predict(row: NamedRow):
    started = time.time()
    try:
        X = pd.DataFrame([row.features])
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

"""The other side of the comparison: the model server that people write by hand with FastAPI.

It does what such a file usually does for one request, in current FastAPI and pydantic: a body of
pydantic type whose numbers are looked at one by one, a coroutine that calls the model twice, a
response model, a decorated middleware that times and logs, CORS for everybody. It is meant to be
ordinary, neither slowed down nor tuned.

    MODEL_PATH=iris_v1.0.0.joblib uvicorn --app-dir bench/baseline server:app
"""

import logging
import os
import time
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import joblib
import numpy as np
from fastapi import FastAPI, HTTPException, Request
from fastapi.middleware.cors import CORSMiddleware
from pydantic import BaseModel, Field, field_validator

logging.basicConfig(level=logging.INFO, format="%(asctime)s - %(name)s - %(levelname)s - %(message)s")
logger = logging.getLogger(__name__)


@dataclass
class Served:
    """The one model of this process."""

    model: Any = None
    version: str = "unknown"


served = Served()


@asynccontextmanager
async def lifespan(_: FastAPI):
    path = Path(os.environ["MODEL_PATH"])
    served.model = joblib.load(path)
    served.version = path.stem.partition("_v")[2] or "unknown"
    logger.info("serving %s, version %s", path.name, served.version)
    yield


app = FastAPI(title="Iris and friends", lifespan=lifespan)
app.add_middleware(
    CORSMiddleware, allow_origins=["*"], allow_credentials=True, allow_methods=["*"], allow_headers=["*"]
)


@app.middleware("http")
async def time_and_log(request: Request, call_next):
    started = time.time()
    response = await call_next(request)
    took_ms = (time.time() - started) * 1000
    logger.info(f"{request.method} {request.url.path} -> {response.status_code} in {took_ms:.2f} ms")  # noqa: G004
    response.headers["X-Process-Time"] = str(took_ms)
    response.headers["X-Model-Version"] = served.version
    return response


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


class Prediction(BaseModel):
    prediction: float
    probability: float | None = None
    model_version: str
    latency_ms: float
    timestamp: datetime = Field(default_factory=datetime.now)


@app.get("/health")
async def health():
    return {"status": "healthy" if served.model is not None else "degraded", "model_version": served.version}


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
    logger.info(f"predicted {label} in {took_ms:.2f} ms")  # noqa: G004
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
    logger.info(f"predicted {len(labels)} rows in {took_ms:.2f} ms")  # noqa: G004
    return {
        "predictions": labels,
        "probabilities": probabilities,
        "model_version": served.version,
        "latency_ms": took_ms,
        "count": len(labels),
        "timestamp": datetime.now(),  # noqa: DTZ005 - as people write it
    }

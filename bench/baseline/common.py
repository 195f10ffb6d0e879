"""What the hand-rolled servers share: the application with its middleware and its log, the model, the reply."""

import logging
import os
import time
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import joblib
from fastapi import FastAPI, Request
from fastapi.middleware.cors import CORSMiddleware
from pydantic import BaseModel, Field

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


class Prediction(BaseModel):
    prediction: float
    probability: float | None = None
    model_version: str
    latency_ms: float
    timestamp: datetime = Field(default_factory=datetime.now)


@app.get("/health")
async def health():
    return {"status": "healthy" if served.model is not None else "degraded", "model_version": served.version}

"""Models in ONNX, run by ONNX Runtime.

An ONNX file holds no code of its own, but it can point to other files, and a graph can ask for more
memory or time than there is. The bytes are walked before the runtime sees them: a tensor in another file
is taken only if that file belongs to the same model, and then out of memory, never from a path. What
only running shows (a loop that does not end) is for the confined child.

Source: https://onnxruntime.ai/docs/api/python/api_summary.html
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from fitserve.errors import ArtifactError, clip
from fitserve.estimators.onnx_graph import looks_like_model, read_graph
from fitserve.formats.base import Format, require
from fitserve.types import ModelFacts

if TYPE_CHECKING:
    from fitserve.estimators.onnx import OnnxModel
    from fitserve.estimators.onnx_graph import Graph
    from fitserve.trust.policy import TrustPolicy
    from fitserve.types import Artifact

FATAL: Final = 4
"""The runtime's log level from which on it writes to standard error: what it raises need not stand there too."""


def load(artifact: Artifact, policy: TrustPolicy) -> OnnxModel:  # noqa: ARG001 - it holds no code
    """Load a model from the artifact's bytes.

    Raises:
        ArtifactError: onnxruntime is missing or refuses the bytes; a tensor lies in a file that is not part of
            the artifact; inputs or outputs are no tables.
    """
    runtime = _runtime()
    from fitserve.estimators.onnx import OnnxModel

    graph = read_graph(artifact.data, artifact.files)
    try:
        session = runtime.InferenceSession(
            artifact.data, _options(runtime, graph, artifact), providers=["CPUExecutionProvider"]
        )
    except Exception as exc:  # the runtime has a class of its own for each status
        msg = f"is refused by ONNX Runtime: {clip(str(exc).partition('] : ')[2] or str(exc), 300)}"
        raise ArtifactError(msg) from exc
    return OnnxModel(session, graph, artifact.declared, _facts(runtime))


def _facts(runtime: Any) -> ModelFacts:
    """What runs the model; with what it was fitted stands in no ONNX file."""
    libraries = {"onnxruntime": str(runtime.__version__), "numpy": np.__version__}
    return ModelFacts("ONNX model", {name: (None, version) for name, version in libraries.items()})


def _options(runtime: Any, graph: Graph, artifact: Artifact) -> Any:
    """One thread a call: as many calls run at once as there are workers and threads of ours."""
    options = runtime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.log_severity_level = FATAL
    options.execution_mode = runtime.ExecutionMode.ORT_SEQUENTIAL
    if graph.external:
        names = sorted(graph.external)
        buffers = [artifact.files[name] for name in names]
        options.add_external_initializers_from_files_in_memory(names, buffers, list(map(len, buffers)))
    return options


def _runtime() -> Any:
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # else importing it starts a thread that calls home
    return require("onnxruntime", "onnx")


def _prepare() -> None:
    _runtime().disable_telemetry_events()
    import fitserve.estimators.onnx  # noqa: F401 - what load needs


FORMAT = Format(
    name="onnx",
    suffixes=(".onnx",),
    matches=lambda artifact: looks_like_model(artifact.data),
    load=load,
    prepare=_prepare,
)

"""PyTorch: TorchScript (``torch.jit.save``) and exported programs (``torch.export.save``).

Both hold code, and the trust policy must vouch for them. What torch 2.13 does with such a file:

- An exported program is JSON with weights, but loading it evaluates the expressions of its symbolic shapes
  with ``sympy.sympify``, which is ``eval``, and unpickles opaque constants and pickled weights with
  ``weights_only=False``. Its own documentation says never to load one from an untrusted source.
- A TorchScript archive is read by torch's own unpickler, which calls no Python; its program however runs in
  an interpreter that can read and write files (``aten::from_file``, ``aten::save``).

An archive of ``torch.save`` is a pickle of weights or of a Python object and no program: it is refused
with what to do instead.

Source: https://docs.pytorch.org/docs/stable/export/pt2_archive.html,
https://docs.pytorch.org/docs/stable/notes/serialization.html
"""

from __future__ import annotations

import io
import zipfile
from typing import TYPE_CHECKING, Any, Final, Literal

from fitserve.errors import ArtifactError, UntrustedArtifactError, clip
from fitserve.estimators.onnx_graph import Graph
from fitserve.formats.base import Format, is_vouched_for, require
from fitserve.types import ModelFacts

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fitserve.estimators.onnx import OnnxModel
    from fitserve.estimators.torch import Tensor
    from fitserve.trust.policy import TrustPolicy
    from fitserve.types import Artifact


MOST_COMPRESSED_BYTES: Final = 64 * 2**20
"""What compressed members may unpack to: torch compresses the text of a program, and stores its numbers."""


def load(artifact: Artifact, policy: TrustPolicy) -> OnnxModel:
    """Load a program from the artifact's bytes.

    Raises:
        UntrustedArtifactError: nothing vouches for the bytes.
        ArtifactError: torch is missing or cannot read them, they are no program, or it takes or gives no tables.
    """
    kind = _kind(artifact.data)
    if kind == "pickle":
        msg = (
            "was written by torch.save, and holds weights or a pickled object but no program: save the model with "
            "torch.export.save(torch.export.export(model, (example,)), path) "
            "or torch.jit.save(torch.jit.script(model), path)"
        )
        raise ArtifactError(msg)
    if not is_vouched_for(artifact, policy):
        reason = (
            "is a program of PyTorch, which may run code when it is loaded or called: "
            f"if you trust this file, pin it: --pin sha256:{artifact.digest}; or export the model to ONNX "
            "(torch.onnx.export), which holds data only"
        )
        raise UntrustedArtifactError(reason, digest=artifact.digest)
    if sum(size for _, size in _members(artifact.data)) > MOST_COMPRESSED_BYTES:
        msg = f"is refused: its compressed members unpack to more than {MOST_COMPRESSED_BYTES} bytes"
        raise ArtifactError(msg)
    torch = require("torch", "torch")
    torch.set_num_threads(1)  # as many calls run at once as there are workers and threads of ours
    from fitserve.estimators.onnx import OnnxModel
    from fitserve.estimators.torch import TorchSession

    try:
        module, inputs = _script(torch, artifact) if kind == "script" else _program(torch, artifact)
    except Exception as exc:  # torch raises whatever it meets
        msg = f"is refused by torch: {clip(str(exc).strip().partition(chr(10))[0], 300)}"
        raise ArtifactError(msg) from exc
    name = "TorchScript module" if kind == "script" else "exported program"
    facts = ModelFacts(name, {"torch": (None, str(torch.__version__))})
    model = OnnxModel(TorchSession(module, inputs), _NO_GRAPH, artifact.declared, facts)
    model.is_library_code = False  # a program may loop on some values
    return model


_NO_GRAPH = Graph(b"", {}, ("", ""), (), {}, frozenset())


def _script(torch: Any, artifact: Artifact) -> tuple[Any, list[Tensor]]:
    """A TorchScript module: it tells the names of its inputs, and no shapes."""
    from fitserve.estimators.torch import Tensor

    module = torch.jit.load(io.BytesIO(artifact.data), map_location="cpu").eval()
    dtype = next((p.dtype for p in module.parameters() if p.dtype.is_floating_point), torch.float32)
    names = [argument.name for argument in module.forward.schema.arguments[1:]]
    return module, [Tensor(name, _word(dtype), (None, None)) for name in names]


def _program(torch: Any, artifact: Artifact) -> tuple[Any, list[Tensor]]:
    """An exported program: each input has the shape that it was exported with."""
    from fitserve.estimators.torch import Tensor

    program = torch.export.load(io.BytesIO(artifact.data))
    values = {node.name: node.meta["val"] for node in program.graph.nodes if node.op == "placeholder"}
    inputs = [
        Tensor(name, _word(values[name].dtype), _shape(values[name].shape))
        for name in program.graph_signature.user_inputs
    ]
    return program.module(), inputs


def _word(dtype: Any) -> str:
    """ONNX Runtime's word for a datatype of torch."""
    name = str(dtype).removeprefix("torch.")
    return f"tensor({ {'float32': 'float', 'float64': 'double'}.get(name, name) })"


def _shape(shape: Sequence[Any]) -> tuple[int | None, ...]:
    return tuple(size if isinstance(size, int) else None for size in shape)


def _kind(data: bytes) -> Literal["script", "program", "pickle"] | None:
    """What an archive of torch holds, by the names of its members; None for any other file. Never raises."""
    if data[:4] != b"PK\x03\x04":
        return None
    try:
        below = {name.partition("/")[2] for name, _ in _members(data)}  # all lie in one folder of any name
    except (zipfile.BadZipFile, ValueError, NotImplementedError, UnicodeError, OSError, EOFError):
        return None
    if {"archive_format", "archive_version"} & below and any(name.startswith("models/") for name in below):
        return "program"
    if "data.pkl" not in below:
        return None
    return "script" if "constants.pkl" in below and any(name.startswith("code/") for name in below) else "pickle"


def _members(data: bytes) -> list[tuple[str, int]]:
    """The members' names, and the unpacked sizes of those that are compressed."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return [
            (member.filename, member.file_size if member.compress_type != zipfile.ZIP_STORED else 0)
            for member in archive.infolist()
        ]


def _prepare() -> None:
    require("torch", "torch")
    import fitserve.estimators.onnx
    import fitserve.estimators.torch  # noqa: F401 - what load needs


FORMAT = Format(
    name="torch",
    suffixes=(".pt", ".pt2", ".pth"),
    matches=lambda artifact: _kind(artifact.data) is not None,
    load=load,
    prepare=_prepare,
    holds_code=True,
)

"""A TorchScript module or an exported program, in the shape of a session of ONNX Runtime.

So one model class serves all that maps tensors to tensors, and tells its outputs apart in one way.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from fitserve.errors import ArtifactError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray


class Tensor(NamedTuple):
    """An input or output: its name, the runtime's word for its datatype, its shape with None for what is free."""

    name: str
    type: str
    shape: tuple[int | None, ...]


class TorchSession:
    """Runs a module on NumPy's arrays. Safe in many threads at once, as the module is not changed.

    Args:
        module: called with one tensor an input.
        inputs: in this order.
    """

    def __init__(self, module: Any, inputs: Sequence[Tensor]) -> None:
        self._module = module
        self._inputs = list(inputs)

    def get_inputs(self) -> list[Tensor]:
        """The inputs, as they were given."""
        return self._inputs

    def get_outputs(self) -> list[Tensor]:
        """The outputs, by running one row of zeros.

        An empty list for a module that does not tell its width, or fails on zeros: it is then taken to
        give one tensor of numbers.
        """
        widths = [tensor.shape[1] if len(tensor.shape) > 1 else 1 for tensor in self._inputs]
        if None in widths:
            return [Tensor("output_0", "tensor(float)", ())]
        feeds = {
            tensor.name: np.zeros(tuple(size or 1 for size in tensor.shape), _dtype(tensor.type))
            for tensor in self._inputs
        }
        try:
            found = self._call(feeds)
        except Exception:  # noqa: BLE001 - told by the warm-up
            return [Tensor("output_0", "tensor(float)", ())]
        return [
            Tensor(f"output_{index}", f"tensor({_NAMES.get(str(array.dtype), array.dtype)})", array.shape)
            for index, array in enumerate(found)
        ]

    def run(self, wanted: Sequence[str], feeds: Mapping[str, NDArray[Any]]) -> list[NDArray[Any]]:
        """The outputs of these names. May raise anything that the module raises."""
        found = self._call(feeds)
        return [found[int(name.rpartition("_")[2])] for name in wanted]

    def _call(self, feeds: Mapping[str, NDArray[Any]]) -> list[NDArray[Any]]:
        import torch

        tensors = [torch.from_numpy(np.require(feeds[tensor.name], requirements=("C", "W"))) for tensor in self._inputs]
        with torch.inference_mode():
            raw = self._module(*tensors)
        if isinstance(raw, dict):
            raw = list(raw.values())
        parts = list(raw) if isinstance(raw, list | tuple) else [raw]
        if not all(isinstance(part, torch.Tensor) for part in parts):
            msg = "gives something other than tensors: wanted one tensor of numbers, or several"
            raise ArtifactError(msg)
        return [part.detach().cpu().numpy() for part in parts]


_NAMES = {"float32": "float", "float64": "double"}


def _dtype(word: str) -> str:
    name = word.removeprefix("tensor(").removesuffix(")")
    return {"float": "float32", "double": "float64"}.get(name, name)

"""Folders that MLflow has written: an ``MLmodel`` file, and beside it the model in a format of its own.

Of the flavours of scikit-learn, XGBoost, LightGBM, CatBoost and ONNX the inner file is loaded as if it had come
alone, by its own format and under the same policy; MLflow is not needed for that. What has no flavour but
``python_function`` runs the author's code: something outside of the folder must vouch for it.

Source: https://mlflow.org/docs/latest/ml/model/
"""

from __future__ import annotations

import json
import re
import shutil
import tempfile
import warnings
import weakref
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fitserve.errors import ArtifactError, InputIssue, InvalidInputError, clip
from fitserve.estimators.model import EstimatorModel
from fitserve.formats import identify
from fitserve.formats.base import Format, Model, require
from fitserve.signature import Field, Kind
from fitserve.trust.judge import require_vouched

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from fitserve.trust.policy import TrustPolicy
    from fitserve.types import Artifact

MLMODEL = "MLmodel"
MAX_MLMODEL_BYTES = 4 * 2**20

FLAVOURS = {
    "sklearn": ("pickled_model", "scikit-learn", "sklearn_version"),
    "xgboost": ("data", "xgboost", "xgb_version"),
    "lightgbm": ("data", "lightgbm", "lgb_version"),
    "catboost": ("data", "catboost", "catboost_version"),
    "onnx": ("data", "onnx", "onnx_version"),
}
"""Of each flavour: where its file, the library and that library's version at saving stand."""

_KINDS: dict[str, Kind] = {
    "double": "number",
    "float": "number",
    "long": "number",
    "integer": "number",
    "boolean": "boolean",
    "string": "string",
    "datetime": "datetime",
}
"""MLflow's types of columns. ``binary``, arrays and objects are no cells of a table here."""

_INTEGERS = {"long": "int64", "integer": "int32"}


def matches(artifact: Artifact) -> bool:
    """Whether it is a folder with an ``MLmodel`` file."""
    return artifact.file_name == MLMODEL and MLMODEL in artifact.files


def prepare() -> None:
    """Import what reads ``MLmodel``; the flavour's own library is not known yet."""
    require("yaml", "mlflow")


def load(artifact: Artifact, policy: TrustPolicy) -> Model:
    """Load the model of a folder, in the format of its flavour.

    Raises:
        UntrustedArtifactError: it holds code that the policy does not let run.
        ArtifactError: the folder is not whole, or the inner file cannot be served.
    """
    document = read_mlmodel(artifact.data)
    flavours = document["flavors"]
    columns = signature_columns(document)
    artifact = replace(artifact, declared=_declared(artifact, document, columns))
    for flavour, (key, _, _) in FLAVOURS.items():
        if flavour in flavours:
            return _load_inner(artifact, flavour, flavours[flavour].get(key), policy)
    if "python_function" not in flavours:
        msg = f"has an {MLMODEL} of the flavours {clip(', '.join(map(str, flavours)))}, none of which is served here"
        raise ArtifactError(msg)
    return _load_pyfunc(artifact, columns, policy)


def read_mlmodel(data: bytes) -> dict[str, Any]:
    """Read an ``MLmodel`` file: the document, its ``flavors`` being a mapping of mappings.

    Raises:
        ArtifactError: it is too large or no such document.
    """
    yaml = require("yaml", "mlflow")
    if len(data) > MAX_MLMODEL_BYTES:
        msg = f"has an {MLMODEL} of {len(data)} bytes, more than the limit of {MAX_MLMODEL_BYTES}"
        raise ArtifactError(msg)
    # YAML 1.1 counts in sixties, and PyYAML with whole numbers: a megabyte of ``:59`` takes 17 s.
    if re.search(rb"(?::[0-9]{1,2}){32}", data):
        msg = f"has an {MLMODEL} with a number of base 60 that no model has"
        raise ArtifactError(msg)
    try:
        document = yaml.load(data, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    except (yaml.YAMLError, ValueError, OverflowError, RecursionError) as exc:
        msg = f"has an {MLMODEL} that is no YAML: {clip(str(exc).replace(chr(10), ' '), 200)}"
        raise ArtifactError(msg) from exc
    flavours = document.get("flavors") if isinstance(document, dict) else None
    if not isinstance(flavours, dict) or not flavours or not all(isinstance(part, dict) for part in flavours.values()):
        msg = f"has an {MLMODEL} without flavours"
        raise ArtifactError(msg)
    return document  # type: ignore[no-any-return]


def signature_columns(document: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The inputs of the signature in ``MLmodel``, as it spells them; none if there is no signature.

    Raises:
        ArtifactError: they are no JSON.
    """
    signature = document.get("signature")
    text = signature.get("inputs") if isinstance(signature, dict) else None
    if not isinstance(text, str):
        return []
    try:
        columns = json.loads(text)
    except (ValueError, RecursionError) as exc:
        msg = f"has an {MLMODEL} whose signature is not valid JSON"
        raise ArtifactError(msg) from exc
    if isinstance(columns, list) and all(isinstance(column, dict) for column in columns):
        return columns
    return []


def fields_of(columns: Sequence[Mapping[str, Any]]) -> tuple[Field, ...] | None:
    """The fields that a signature states, None if it has no names or types that are none of a table."""
    fields = []
    for column in columns:
        kind, name = _KINDS.get(str(column.get("type"))), column.get("name")
        if kind is None or not isinstance(name, str):
            return None
        # A column that had no missing value when the signature was inferred is "required"; older ones say "optional".
        is_required = column.get("required", not column.get("optional", False))
        fields.append(Field(name, kind, is_nullable=not is_required, learnt_from="mlflow"))
    return tuple(fields) or None


def _declared(artifact: Artifact, document: Mapping[str, Any], columns: Sequence[Mapping[str, Any]]) -> Any:
    """What the folder says, below what its surroundings say already."""
    declared = artifact.declared
    fields = fields_of(columns) or declared.mlflow_fields
    libraries = {"mlflow": document.get("mlflow_version")}
    for flavour, (_, library, key) in FLAVOURS.items():
        libraries[library] = document["flavors"].get(flavour, {}).get(key)
    told = {name: version[:64] for name, version in libraries.items() if isinstance(version, str)}
    return replace(
        declared,
        mlflow_fields=fields,
        example=declared.example or (_example(artifact, document, fields) if fields else None),
        libraries={**told, **declared.libraries},
    )


def _example(artifact: Artifact, document: Mapping[str, Any], fields: Sequence[Field]) -> dict[str, Any] | None:
    """The first row of the input example that the author saved, if it names the inputs and has no nulls."""
    about = document.get("saved_input_example_info")
    data = artifact.files.get(str(about.get("artifact_path"))) if isinstance(about, dict) else None
    try:
        example = json.loads(data) if data else None
        row = dict(zip(example["columns"], example["data"][0], strict=True)) if example else {}
    except (ValueError, LookupError, TypeError, RecursionError):  # another kind of example, a tensor for one
        return None
    is_whole = set(row) == {field.name for field in fields}
    return row if is_whole and all(isinstance(value, str | int | float | bool) for value in row.values()) else None


def _load_inner(artifact: Artifact, flavour: str, path: object, policy: TrustPolicy) -> Model:
    """Load the flavour's file as its own format does."""
    path = path.removeprefix("./") if isinstance(path, str) else ""
    if path not in artifact.files:
        msg = f"has an {MLMODEL} whose flavour {flavour} names the file {clip(path)!r}, which is not there"
        raise ArtifactError(msg)
    base, _, file_name = path.rpartition("/")
    prefix = f"{base}/" if base else ""
    # The digest stays that of the whole folder: it is what a pin vouches for.
    inner = replace(
        artifact,
        data=artifact.files[path],
        file_name=file_name,
        declared=replace(artifact.declared, format=None),  # which is that of the folder
        files={
            name.removeprefix(prefix): data
            for name, data in artifact.files.items()
            if name.startswith(prefix) and name != MLMODEL
        },
    )
    try:
        known = identify(inner)
    except ArtifactError as exc:
        msg = f"has a file {clip(path)} of the flavour {flavour} that {exc}"
        raise ArtifactError(msg) from exc
    known.prepare()
    require_vouched(inner, holds_code=known.holds_code, format_name=known.name, policy=_after_signature(inner, policy))
    return known.load(inner, policy)


def _after_signature(artifact: Artifact, policy: TrustPolicy) -> TrustPolicy:
    """The policy, where the signature of the whole folder has been verified, as a pin on it."""
    if policy.verify_key is None:
        return policy
    return replace(policy, verify_key=None, pins=policy.pins | {artifact.digest})


def _load_pyfunc(artifact: Artifact, columns: Sequence[Mapping[str, Any]], policy: TrustPolicy) -> EstimatorModel:
    """Load a model of the author's own code with MLflow, out of a private copy of the bytes that were checked."""
    require_vouched(artifact, holds_code=True, format_name="mlflow pyfunc", policy=_after_signature(artifact, policy))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of MLflow about itself
        pyfunc = require("mlflow.pyfunc", "mlflow")
    require("pandas", "mlflow")
    if artifact.declared.mlflow_fields is None:
        msg = "is an MLflow model of the author's own code, without a signature of named columns: save it with one"
        raise ArtifactError(msg)
    folder = _materialised(artifact.files)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            model = pyfunc.load_model(folder)
        except (Exception, SystemExit) as exc:  # its code may raise anything
            shutil.rmtree(folder, ignore_errors=True)
            msg = f"cannot be loaded by MLflow: {type(exc).__name__}: {clip(str(exc), 200)}"
            raise ArtifactError(msg) from exc
    types = {str(column["name"]): str(column["type"]) for column in columns}
    return EstimatorModel(
        PyfuncEstimator(model, types, folder),
        caught=[warning.message for warning in caught],
        declared=artifact.declared,
    )


def _materialised(files: Mapping[str, bytes]) -> str:
    """Write the files into a new folder that is this user's alone; return its path."""
    try:
        folder = tempfile.mkdtemp(prefix="fitserve-mlflow-")
        for name, data in files.items():
            path = Path(folder, name)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
    except OSError as exc:
        msg = f"needs a temporary folder to be loaded by MLflow, which cannot be written: {exc.strerror}"
        raise ArtifactError(msg) from exc
    return folder


class PyfuncEstimator:
    """A pyfunc model in the shape of an estimator.

    Attributes:
        feature_names_in_: the columns of its signature.
        n_features_in_: how many.
    """

    def __init__(self, model: Any, types: Mapping[str, str], folder: str) -> None:
        self._model = model
        self._types = dict(types)
        # The model may read from its folder as long as it lives.
        weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)
        self.feature_names_in_ = np.array(list(types), dtype=object)
        self.n_features_in_ = len(types)

    def predict(self, X: Any) -> NDArray[Any]:
        """Predict for a frame with the columns of the signature, in the types that MLflow enforces.

        Raises:
            InvalidInputError: a column of integers has a number that is none.
        """
        X = X.copy()
        for name, kind in self._types.items():
            X[name] = _cast(X[name], kind)
        answer = self._model.predict(X)
        if hasattr(answer, "to_numpy"):
            answer = answer.to_numpy()
        answer = np.asarray(answer)
        return answer[:, 0] if answer.ndim > 1 and answer.shape[1] == 1 else answer


def _cast(column: Any, kind: str) -> Any:
    if kind in _INTEGERS and not column.isna().any():
        if (column % 1 != 0).any():
            raise InvalidInputError([InputIssue("integers", "a number that is none", column=str(column.name))])
        return column.astype(_INTEGERS[kind])
    if kind == "float":
        return column.astype("float32")
    if kind == "boolean" and not column.isna().any():
        return column.astype(bool)
    return column


FORMAT = Format(name="mlflow", suffixes=(), matches=matches, load=load, prepare=prepare)

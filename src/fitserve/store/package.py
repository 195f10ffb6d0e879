"""``fitserve pack``: a model becomes a folder that proves itself.

The model, a manifest with its signature, the versions of the libraries and the sha256 of each file, and golden
samples: rows with the outputs that they gave here. The model is loaded and answers in a confined child; this process
handles bytes only.
"""

from __future__ import annotations

import contextlib
import hashlib
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal

from fitserve.errors import ArtifactError, InvalidInputError
from fitserve.estimators.walk import parts_of
from fitserve.formats import identify
from fitserve.store.compile import PACKAGED
from fitserve.store.engines import INDEX
from fitserve.store.engines_tried import engines_to_pack
from fitserve.store.examples import ORIGIN, Examples, example_of, fit_rows, learn_fields, read_examples
from fitserve.store.files import write_folder
from fitserve.store.golden import GOLDEN_FILE, MAX_GOLDEN_ROWS, golden_json, record, replay
from fitserve.store.layouts import MLFLOW
from fitserve.store.loading import load_artifact
from fitserve.store.made_rows import scattered_rows, self_made_rows
from fitserve.store.manifest import PACKAGE_MANIFEST, InputEntry, PackageManifest
from fitserve.store.message import artifact_of, policy_of_message
from fitserve.store.repository import read_artifact
from fitserve.store.verify import enter_with, with_path
from fitserve.types import Golden

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from fitserve.formats.base import Model
    from fitserve.store.catalog import LoadedModel
    from fitserve.store.verify import Verifier
    from fitserve.trust.policy import TrustPolicy
    from fitserve.types import Artifact

GOLDEN_ROWS = 100
"""Golden rows unless told otherwise: enough to meet most categories, answered in milliseconds."""

MODEL_FOLDER = "model"
"""Where a model that is itself a folder lies in a package."""

_OWN_FILES = frozenset({PACKAGE_MANIFEST, GOLDEN_FILE})


@dataclass(frozen=True, slots=True)
class Wanted:
    """What the author asks of a package.

    Attributes:
        name: of the model; else the one that it has.
        version: likewise.
        metadata: added to what the model has.
        classes: labels for a model that only knows 0, 1, ….
        n_rows: the most golden rows.
        is_forced: an existing package is replaced.
        optimize: whether engines are compiled and packed; as the setting.
        optimize_timeout_s: how long that may take.
    """

    name: str | None = None
    version: str | None = None
    metadata: Mapping[str, str] | None = None
    classes: tuple[str, ...] | None = None
    n_rows: int = GOLDEN_ROWS
    is_forced: bool = False
    optimize: Literal["auto", "off", "require"] = "off"
    optimize_timeout_s: float = 120.0


def pack(source: Path, out: Path, *, examples: Path | None, wanted: Wanted, verifier: Verifier) -> dict[str, Any]:
    """Pack a model into the folder ``out``, read it back, and replay what was written.

    Returns:
        What was written, as a JSON object.

    Raises:
        ArtifactError: the model cannot be served, the examples do not fit, or ``out`` is in the way. The text names
            the path that it speaks of.
    """
    is_replacing = _is_package(out, is_forced=wanted.is_forced)
    with _named(source, verifier.policy):
        artifact = read_artifact(source, takes_external=True)
        declared = replace(artifact.declared, classes=wanted.classes or artifact.declared.classes)
        artifact = replace(
            artifact,
            name=wanted.name or artifact.name,
            version=wanted.version or artifact.version,
            declared=declared,
            golden=None,
            metadata={**artifact.metadata, **(wanted.metadata or {})},
        )
    rows = None
    if examples is not None:
        with _named(examples, verifier.policy):
            rows = read_examples(examples)
    given = {"rows": None if rows is None else asdict(rows), "n_rows": min(wanted.n_rows, MAX_GOLDEN_ROWS)}
    with _named(source, verifier.policy):
        answer = verifier.run("fitserve.store.package:pack_task", artifact, **given)
    files = _contents(artifact, answer)
    write_folder(out, files, is_replacing=is_replacing)
    with _named(out, verifier.policy):
        packed = read_artifact(out)
        # Whatever vouched for the model vouches for its package, which has been made of the same bytes just now.
        policy = verifier.policy
        is_vouched = policy.pins or policy.verify_key is not None
        pins = policy.pins | {packed.digest} if is_vouched else policy.pins
        again = replace(verifier, policy=replace(policy, pins=pins, verify_key=None))
        report = again.run("fitserve.store.package:replay_task", packed)
        engines, optimization = engines_to_pack(packed, again, wanted.optimize, wanted.optimize_timeout_s)
        if engines:
            files = _contents(artifact, answer, engines)
            write_folder(out, files, is_replacing=True)
            packed = read_artifact(out)
    sizes = {path: len(data) for path, data in files.items()}
    return {
        "name": packed.name,
        "version": packed.version,
        "digest": f"sha256:{packed.digest}",
        "format": answer["format"],
        "files": sizes,
        "n_rows": len(answer["golden"]["rows"]),
        "rows_are": "self-made" if rows is None else ORIGIN,
        "left_out": answer["left_out"],
        "warnings": answer["warnings"],
        "golden": report,
        "optimization": optimization,
    }


@contextlib.contextmanager
def _named(path: Path, policy: TrustPolicy) -> Any:
    """Put the path before the text of an error, for the operator."""
    try:
        yield
    except ArtifactError as exc:
        raise with_path(exc, path, policy) from exc


def pack_task(request: dict[str, Any], blobs: Sequence[memoryview]) -> dict[str, Any]:
    """In the child: load the model, learn from the examples, and answer the golden rows.

    Raises:
        ArtifactError: the model cannot be served, or its examples do not fit.
    """
    artifact, load = begin(request, blobs)
    loaded = load(artifact)
    model = loaded.model
    left_out: list[str] = []
    if request["rows"] is None:
        golden_rows = [*self_made_rows(model.signature), *scattered_rows(model)][: request["n_rows"]]
        if not golden_rows:
            msg = "does not tell its features: give rows for it, by --examples"
            raise ArtifactError(msg)
    else:
        examples = Examples(**request["rows"])
        try:
            rows, fields, left_out = fit_rows(examples, model.signature)
        except ArtifactError as exc:
            msg = f"cannot take the example rows: their file {exc}"
            raise ArtifactError(msg) from exc
        # What the author's own manifest says goes before what the rows say.
        declared = artifact.declared
        if declared.fields is None and (learnt := learn_fields(fields, rows)) != model.signature.inputs:
            declared = replace(declared, fields=learnt)
        if declared.fields is not None and declared.example is None:
            declared = replace(declared, example=example_of(declared.fields, rows))
        loaded = _reloaded(load, replace(artifact, declared=declared))
        model = loaded.model
        golden_rows = rows[:: max(1, -(-len(rows) // request["n_rows"]))]  # spread over the file, which may be sorted
        if model.signature.is_named:
            golden_rows = [dict(zip(model.signature.names, row, strict=True)) for row in golden_rows]
    return _answer(model, artifact, golden_rows, left_out)


def _reloaded(load: Callable[[Artifact], LoadedModel], artifact: Artifact) -> LoadedModel:
    """The model with all that is declared; without the made-up example if the model does not answer that."""
    try:
        return load(artifact)
    except ArtifactError:
        return load(replace(artifact, declared=replace(artifact.declared, example=None)))


def _answer(model: Model, artifact: Artifact, rows: Sequence[Any], left_out: Sequence[str]) -> dict[str, Any]:
    try:
        golden = record(model, rows)
    except InvalidInputError as exc:
        msg = f"cannot take the example rows: {exc}"
        raise ArtifactError(msg) from exc
    signature = model.signature
    is_told = artifact.declared.classes is not None and signature.n_outputs == 0
    # Without names of its own or from the rows it is told nothing, so that it stays without.
    is_named = signature.is_named
    example = dict(zip(signature.names, signature.example, strict=True)) if is_named and signature.example else None
    return {
        "format": identify(artifact).name,
        "inputs": [InputEntry.of(field).model_dump(mode="json") for field in signature.inputs] if is_named else [],
        "example": None if example is None or None in example.values() else example,
        "classes": list(artifact.declared.classes or ()) if is_told else None,
        "libraries": {name: at_fit or now for name, (at_fit, now) in model.facts.libraries.items()},
        "golden": asdict(golden),
        "left_out": list(left_out),
        "warnings": [*model.facts.warnings, *_notebook_classes(model, artifact)],
    }


def _notebook_classes(model: Model, artifact: Artifact) -> list[str]:
    """What to say of a pickle that carries what a notebook defined: only pinned or trusted wholly it is loaded."""
    found = [part for part in parts_of(model) if getattr(part, "__module__", None) == "__main__"]
    if not found:
        return []
    names = ", ".join(sorted({getattr(part, "__name__", type(part).__name__) for part in found}))
    told = (
        f"holds {names}, defined in a notebook or script (__main__): it is loaded only where it is pinned. Move them "
        f"into a module and save the model again, or make it ONNX or skops: "
        f"fitserve convert {artifact.file_name} OUT.onnx"
    )
    return [told]


def replay_task(request: dict[str, Any], blobs: Sequence[memoryview]) -> dict[str, Any]:
    """In the child: load a package and replay its golden samples.

    Raises:
        ArtifactError: it cannot be served, or answers otherwise than it did.
    """
    artifact, load = begin(request, blobs)
    loaded = load(artifact)
    assert artifact.golden is not None  # it has just been packed
    report = replay(loaded.model, artifact.golden)
    if not report.is_ok:
        msg = f"does not answer as it did a moment ago: {report.mismatch}"
        raise ArtifactError(msg)
    return {"is_ok": True, "n_rows": report.n_rows, "outputs": [asdict(output) for output in report.outputs]}


def begin(request: dict[str, Any], blobs: Sequence[memoryview]) -> tuple[Artifact, Callable[[Artifact], LoadedModel]]:
    """Begin a task: confine this process where that is asked, and return the artifact and what loads it.

    Raises:
        ArtifactError: the bytes are of no known format.
    """
    if "memory_bytes" in request:
        artifact, policy, _ = enter_with(request, blobs)
    else:
        artifact, policy = artifact_of(request["artifact"], blobs), policy_of_message(request["policy"])
    return artifact, lambda wanted: load_artifact(wanted, policy)


def _contents(
    artifact: Artifact, answer: Mapping[str, Any], engines: Mapping[str, bytes] = MappingProxyType({})
) -> dict[str, bytes]:
    """Every file of the package, by its path in it."""
    if MLFLOW in artifact.files:
        model = MODEL_FOLDER
        files = {f"{MODEL_FOLDER}/{path}": data for path, data in artifact.files.items()}
    elif artifact.files:
        model = next(path for path, data in artifact.files.items() if data is artifact.data)
        files = {
            path: data
            for path, data in artifact.files.items()
            if path not in _OWN_FILES and not path.startswith(PACKAGED)  # a package is packed anew
        }
    else:
        model = artifact.file_name if artifact.file_name not in _OWN_FILES else f"model-{artifact.file_name}"
        files = {model: artifact.data}
    files[GOLDEN_FILE] = golden_json(Golden(**answer["golden"]))
    files |= {f"{PACKAGED}{name}": data for name, data in engines.items()}
    manifest = PackageManifest(
        schema=1,
        name=artifact.name,
        version=artifact.version,
        format=answer["format"],
        model=model,
        golden=GOLDEN_FILE,
        engines=tuple(sorted(name.removesuffix(".bin") for name in engines if name != INDEX)),
        packed_at=datetime.now(UTC).replace(microsecond=0),
        example=answer["example"],
        classes=answer["classes"],
        inputs=tuple(InputEntry(**entry) for entry in answer["inputs"]) or None,
        libraries=answer["libraries"],
        metadata=dict(artifact.metadata),
        files={path: hashlib.sha256(data).hexdigest() for path, data in files.items()},
    )
    return {**files, PACKAGE_MANIFEST: manifest.toml().encode()}


def _is_package(out: Path, *, is_forced: bool) -> bool:
    """Whether a package is there, which may be replaced; refuse a place where something else is."""
    if not out.exists() and not out.is_symlink():
        return False
    if out.is_symlink() or not out.is_dir():
        msg = f"{out} is in the way: it is no folder"
        raise ArtifactError(msg)
    if not any(out.iterdir()):
        return False
    if not (out / PACKAGE_MANIFEST).is_file():
        msg = f"{out} is in the way: it is a folder of something else than a package"
        raise ArtifactError(msg)
    if not is_forced:
        msg = f"{out} is a package already: --force replaces it"
        raise ArtifactError(msg)
    return True

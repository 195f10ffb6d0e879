"""One contract over all formats: they find their files, answer as the library does, and refuse the rest cleanly."""

import importlib.util
import pickle
import sys
from dataclasses import replace

import numpy as np
import pytest
from formats.samples import NEEDS, SAMPLES, artifact_of, sample
from sklearn.linear_model import LinearRegression

import fitserve.formats
from fitserve.errors import ArtifactError
from fitserve.formats import identify
from fitserve.formats.base import Format
from fitserve.plugins import discover
from fitserve.trust.policy import TrustPolicy
from fitserve.types import Artifact

FORMATS = {part.name: part for part in discover(fitserve.formats, Format, "FORMAT")}
ABSENT = {kind for kind, library in NEEDS.items() if importlib.util.find_spec(library) is None}
NAMES = [name for name, (kind, _) in SAMPLES.items() if kind in FORMATS and kind not in ABSENT]
FIRST = {
    kind: next(name for name in NAMES if SAMPLES[name][0] == kind) for kind in sorted({SAMPLES[n][0] for n in NAMES})
}
SHORT_TEXTS = {"mlflow", "python"}  # of which a part may be whole
LIBRARIES = {
    "xgboost": "xgboost",
    "lightgbm": "lightgbm",
    "catboost": "catboost",
    "skops": "skops.io",
    "onnx": "onnxruntime",
}


def load(made):
    return FORMATS[made.format].load(made.artifact, made.policy)


def same(given, wanted, atol):
    """Labels are equal; numbers are, within the tolerance that the sample states."""
    given, wanted = np.asarray(given), np.asarray(wanted)
    if wanted.dtype.kind == "f":
        return given.shape == wanted.shape and np.allclose(given, wanted, rtol=1e-6, atol=atol, equal_nan=True)
    return given.tolist() == wanted.tolist()


def test_every_format_has_a_sample():
    assert set(FORMATS) <= {kind for kind, _ in SAMPLES.values()}


@pytest.mark.parametrize("name", NAMES)
def test_exactly_one_format_takes_the_file(name):
    made = sample(name)

    assert [part.name for part in FORMATS.values() if part.matches(made.artifact)] == [made.format]


@pytest.mark.parametrize("name", NAMES)
def test_it_answers_as_the_library_does(name):
    made = sample(name)
    model = load(made)

    outputs = model.predict(model.signature.check(made.rows))

    assert same(outputs.predictions, made.predictions, made.atol)
    if made.probabilities is None:
        assert not outputs.probabilities
    else:
        assert same(outputs.probabilities[0], made.probabilities, made.atol)


@pytest.mark.parametrize("name", NAMES)
def test_it_answers_its_own_example(name):
    model = load(sample(name))

    outputs = model.predict(model.signature.check([list(model.signature.example_row())]))

    assert len(outputs.predictions) == 1


@pytest.mark.parametrize("kind", sorted(FIRST.keys() - SHORT_TEXTS))
@pytest.mark.parametrize("part", [0.1, 0.5, 0.9, 0.99])
def test_a_truncated_file_is_an_artifact_error(kind, part):
    made = sample(FIRST[kind])
    data = made.artifact.data[: int(len(made.artifact.data) * part)]

    with pytest.raises(ArtifactError) as refusal:
        FORMATS[kind].load(replace(made.artifact, data=data), made.policy)
    assert "\n" not in str(refusal.value)
    assert "/" not in str(refusal.value).replace("--", "")


@pytest.mark.parametrize("kind", FIRST)
@pytest.mark.parametrize("data", [b"", b"\0", b"garbage" * 100, b"\xff" * 64], ids=["empty", "zero", "garbage", "ones"])
def test_what_is_no_such_file_is_an_artifact_error(kind, data):
    made = sample(FIRST[kind])

    with pytest.raises(ArtifactError):
        FORMATS[kind].load(replace(made.artifact, data=data), made.policy)


@pytest.mark.parametrize("data", [b"", b"\0", b"{}", b"garbage" * 100], ids=["empty", "zero", "object", "garbage"])
def test_no_format_that_holds_no_code_takes_junk(data):
    assert [f.name for f in FORMATS.values() if not f.holds_code and f.matches(artifact_of(data))] == []


@pytest.mark.parametrize("kind", [kind for kind in FIRST if not FORMATS[kind].holds_code])
def test_a_pickle_by_its_suffix_is_not_taken_for_it(kind):
    pickled = sample("sklearn logistic pickle").artifact.data
    names = [f"model{suffix}" for suffix in FORMATS[kind].suffixes]

    assert not any(FORMATS[kind].matches(artifact_of(pickled, file_name=name)) for name in names)


@pytest.mark.parametrize(("kind", "library"), [(k, v) for k, v in LIBRARIES.items() if k in FIRST])
def test_a_missing_library_is_named_with_the_extra_that_has_it(kind, library, monkeypatch):
    made = sample(FIRST[kind])
    monkeypatch.setitem(sys.modules, library, None)

    with pytest.raises(ArtifactError, match=r"needs the package .* pip install 'fitserve\["):
        load(made)


@pytest.mark.parametrize("kind", [kind for kind in FIRST if not FORMATS[kind].holds_code])
def test_it_loads_where_only_data_is_trusted(kind):
    made = sample(FIRST[kind])

    FORMATS[kind].load(made.artifact, TrustPolicy(level="data"))


@pytest.mark.parametrize("kind", FIRST)
def test_loading_prints_nothing(kind, capfd):
    load(sample(FIRST[kind]))

    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("protocol", [0, 1])
def test_an_old_pickle_is_told_from_what_is_unknown(protocol):
    data = pickle.dumps(LinearRegression().fit([[0.0], [1.0]], [0.0, 1.0]), protocol=protocol)

    with pytest.raises(ArtifactError, match="a pickle of protocol 0 or 1"):
        identify(Artifact("m", "1", "", data, "m.pkl"))

"""skops files: which types they may need, and what is refused before skops sees it."""

import copy
import io
import json
import os
import zipfile

import numpy as np
import pytest
import skops.io
from formats.samples import _classes, _matrix, artifact_of, catboost_model, lightgbm_model, sample, xgboost_model
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer

from fitserve.errors import ArtifactError, UntrustedArtifactError
from fitserve.formats.skops import FORMAT
from fitserve.trust.allowlist import allowed_names
from fitserve.trust.policy import TrustPolicy

TREE = "sklearn.tree._tree.Tree"


def fitted(estimator):
    return estimator.fit(_matrix(), _classes())


def artifact(estimator):
    return artifact_of(skops.io.dumps(estimator))


def rewritten(data, **changes):
    """The archive with some of its files changed; a file of None is left out."""
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(out, "w") as new:
        for name in old.namelist():
            change = changes.get(name.replace(".", "_"), lambda content: content)
            if (content := change(old.read(name))) is not None:
                new.writestr(name, content)
    return out.getvalue()


@pytest.mark.parametrize(
    "estimator",
    [RandomForestClassifier(3), HistGradientBoostingClassifier(max_iter=3), KNeighborsClassifier(algorithm="kd_tree")],
    ids=str,
)
def test_types_on_the_exact_name_list_load_under_it_and_not_as_data(estimator):
    made = artifact(fitted(estimator))

    FORMAT.load(made, TrustPolicy())

    with pytest.raises(UntrustedArtifactError) as refusal:
        FORMAT.load(made, TrustPolicy(level="data"))
    assert set(refusal.value.missing) <= set(allowed_names())


def test_every_name_that_the_list_gives_skops_is_a_class():
    import importlib

    from fitserve.formats.skops import _is_allowed

    names = [name for name in allowed_names() if _is_allowed(name, TrustPolicy())]

    assert TREE in names
    for name in names:
        module, _, attribute = name.rpartition(".")
        assert isinstance(getattr(importlib.import_module(module), attribute), type), name


@pytest.mark.parametrize("level", ["data", "allowlist", "pinned"])
def test_a_function_that_is_no_model_is_named_and_not_run(level):
    hostile = make_pipeline(FunctionTransformer(os.system), LogisticRegression())
    hostile.steps[1][1].fit(_matrix(), _classes())

    with pytest.raises(UntrustedArtifactError, match=r"posix\.system") as refusal:
        FORMAT.load(artifact(hostile), TrustPolicy(level=level))
    assert refusal.value.missing == ("posix.system",)


def test_what_the_operator_allows_loads():
    made = artifact(fitted(make_pipeline(FunctionTransformer(copy.copy), LogisticRegression())))
    with pytest.raises(UntrustedArtifactError) as refusal:
        FORMAT.load(made, TrustPolicy())

    policy = TrustPolicy(allow=frozenset(refusal.value.missing))

    assert FORMAT.load(made, policy)


def test_a_vouched_file_may_need_what_it_likes():
    made = sample("sklearn forest skops").artifact

    assert FORMAT.load(made, TrustPolicy(level="pinned", pins=frozenset({made.digest})))


def test_a_catboost_model_is_to_be_saved_in_its_own_format():
    with pytest.raises(UntrustedArtifactError, match=r"save a model of CatBoost as \.cbm"):
        FORMAT.load(artifact(catboost_model("binary").estimator), TrustPolicy())


BOOSTERS = [xgboost_model, lightgbm_model]


@pytest.mark.parametrize("make", BOOSTERS)
def test_wrappers_of_boosters_answer_as_they_were_fitted(make):
    estimator = make("binary").estimator
    served = FORMAT.load(artifact(estimator), TrustPolicy())

    probabilities = served.predict(served.signature.check(_matrix()[:20].tolist())).probabilities

    np.testing.assert_allclose(probabilities[0], estimator.predict_proba(_matrix()[:20]))
    with pytest.raises(UntrustedArtifactError):
        FORMAT.load(artifact(estimator), TrustPolicy(level="data"))


def booster_node(schema):
    return schema["content"]["content"]["_Booster"]


def doctored(make, change):
    """The file of a fitted wrapper whose schema was changed."""

    def rewrite(content):
        schema = json.loads(content)
        change(schema, booster_node(schema))
        return json.dumps(schema).encode()

    return artifact_of(rewritten(artifact(make("binary").estimator).data, schema_json=rewrite))


def damage_text(schema, booster):
    handle = booster["content"]["content"]["_handle"]
    handle["content"] = handle["content"].replace("left_child=1", "left_child=999999")


def stand_for(part):
    """Put a node before the state of the booster that skops takes for a part of it."""

    def change(schema, booster):
        real = booster["content"] if part == "state" else booster["content"]["key_types"]
        schema["content"]["content"] = {"before": {**real, "content": real["content"] and type(real["content"])()}} | (
            schema["content"]["content"]
        )

    return change


def rename_model(schema, booster):
    content = booster["content"]["content"]
    content["_HANDLE"] = content.pop("_handle" if "_handle" in content else "handle")


def drop_state(schema, booster):
    booster["content"] = None


@pytest.mark.parametrize(
    ("make", "change", "told"),
    [
        (lightgbm_model, damage_text, "tree|child|leaf"),
        *((make, stand_for(part), "in a way in which skops") for make in BOOSTERS for part in ("state", "keys")),
        *((make, rename_model, "in a way in which skops") for make in BOOSTERS),
        *((make, drop_state, "in a way in which skops") for make in BOOSTERS),
    ],
)
def test_a_booster_whose_native_model_was_not_looked_at_is_refused(make, change, told):
    with pytest.raises(ArtifactError, match=told):
        FORMAT.load(doctored(make, change), TrustPolicy())


def test_a_damaged_native_model_never_reaches_xgboost():
    made = artifact(xgboost_model("binary").estimator)
    name = next(n for n in zipfile.ZipFile(io.BytesIO(made.data)).namelist() if n.endswith(".bin"))

    data = rewritten(
        made.data, **{name.replace(".", "_"): lambda content: content.replace(b"left_children", b"left_childrem")}
    )

    with pytest.raises(ArtifactError):
        FORMAT.load(artifact_of(data), TrustPolicy())


def test_a_type_of_the_list_is_not_called():
    def call(content):
        text = json.dumps(json.loads(content)).replace('"__loader__": "TreeNode"', '"__loader__": "LossNode"')
        return text.encode()

    data = rewritten(sample("sklearn forest skops").artifact.data, schema_json=call)

    with pytest.raises(ArtifactError, match="in a way in which skops does not save it"):
        FORMAT.load(artifact_of(data), TrustPolicy())


def test_a_tree_that_leads_out_of_itself_is_refused():
    with zipfile.ZipFile(io.BytesIO(sample("sklearn forest skops").artifact.data)) as archive:
        name = next(n for n in archive.namelist() if n.endswith(".npy") and b"left_child" in archive.read(n)[:200])

    def change(content):
        nodes = np.load(io.BytesIO(content))
        nodes["left_child"][0] = 10**6
        out = io.BytesIO()
        np.save(out, nodes)
        return out.getvalue()

    data = rewritten(sample("sklearn forest skops").artifact.data, **{name.replace(".", "_"): change})

    with pytest.raises(ArtifactError, match="is damaged"):
        FORMAT.load(artifact_of(data), TrustPolicy())


def test_an_array_that_says_it_is_larger_than_it_is_is_refused():
    def change(content):
        return (
            content.replace(b"(4,)", b"(9999999999,)".ljust(4)).replace(b" " * 9, b"", 1)
            if b"(4,)" in content
            else content
        )

    data = sample("sklearn logistic skops").artifact.data
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        changes = {name.replace(".", "_"): change for name in archive.namelist() if name.endswith(".npy")}

    with pytest.raises(ArtifactError, match="an array in it is not as long as it says"):
        FORMAT.load(artifact_of(rewritten(data, **changes)), TrustPolicy())


def test_an_archive_that_is_a_bomb_is_refused():
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("1.npy", b"\0" * (80 << 20))
        archive.writestr("schema.json", "{}")

    with pytest.raises(ArtifactError, match="bomb"):
        FORMAT.load(artifact_of(out.getvalue()), TrustPolicy())


@pytest.mark.parametrize("schema", [b"", b"[]", b"{}", b"[" * 100_000, b'{"protocol": 999, "_skops_version": "9"}'])
def test_a_schema_that_is_none_is_refused(schema):
    data = rewritten(sample("sklearn logistic skops").artifact.data, schema_json=lambda _: schema)

    with pytest.raises(ArtifactError):
        FORMAT.load(artifact_of(data), TrustPolicy())


def test_what_predicts_nothing_is_refused():
    with pytest.raises(ArtifactError, match="holds an object of type dict, which has no predict"):
        FORMAT.load(artifact({"a": 1}), TrustPolicy())

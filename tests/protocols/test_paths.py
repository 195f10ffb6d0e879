"""Paths with parameters."""

from __future__ import annotations

import pytest

from fitserve.protocols.paths import DEFAULT_MODEL, Paths, narrowed, ref_of
from fitserve.types import ModelRef

TEMPLATES = (
    "/predict",
    "/models",
    "/models/{name}",
    "/models/{name}/predict",
    "/models/{name}/predict/batch",
    "/models/{name}/versions/{version}",
    "/models/{name}/versions/{version}/predict",
    "/operations/{id}",
)


@pytest.mark.parametrize(
    ("path", "found"),
    [
        ("/predict", ("/predict", {})),
        ("/models", ("/models", {})),
        ("/models/churn", ("/models/{name}", {"name": "churn"})),
        ("/models/predict", ("/models/{name}", {"name": "predict"})),
        ("/models/{name}", ("/models/{name}", {"name": "{name}"})),
        ("/models/churn@champion/predict", ("/models/{name}/predict", {"name": "churn@champion"})),
        ("/models/a b/predict/batch", ("/models/{name}/predict/batch", {"name": "a b"})),
        ("/models/a/versions/1.2.3+4", ("/models/{name}/versions/{version}", {"name": "a", "version": "1.2.3+4"})),
        ("/operations/op-1", ("/operations/{id}", {"id": "op-1"})),
        ("/models/", None),
        ("/models//predict", None),
        ("/models/a/versions//predict", None),
        ("/models/a/nope", None),
        ("/models/a/predict/", None),
        ("/model/a", None),
        ("/operations", None),
        ("", None),
        ("predict", None),
        ("/" * 5000, None),
    ],
)
def test_a_path_fits_one_template_or_none(path, found):
    assert Paths(TEMPLATES).find(path) == found


@pytest.mark.parametrize(
    ("parameters", "ref"),
    [
        ({}, DEFAULT_MODEL),
        ({"id": "op-1"}, DEFAULT_MODEL),
        ({"name": "churn"}, ModelRef(name="churn")),
        ({"name": "churn@champion"}, ModelRef(name="churn", alias="champion")),
        ({"name": "churn", "version": "2"}, ModelRef(name="churn", version="2")),
        ({"name": "churn", "version": "@champion"}, ModelRef(name="churn", alias="champion")),
        ({"name": "churn@champion", "version": "2"}, ModelRef(name="churn", version="2", alias="champion")),
        ({"name": "churn@a", "version": "@b"}, ModelRef(name="churn@a", alias="b")),
        ({"name": "churn@"}, ModelRef(name="churn", alias="")),
    ],
)
def test_what_a_path_asks_for(parameters, ref):
    assert ref_of(parameters) == ref


@pytest.mark.parametrize(
    ("ref", "version", "found"),
    [
        (ModelRef(), "2", ModelRef(version="2")),
        (ModelRef(), "@champion", ModelRef(alias="champion")),
        (ModelRef("churn"), "2", ModelRef("churn", "2")),
        (ModelRef("churn", "2"), "2", ModelRef("churn", "2")),
        (ModelRef("churn", "2"), "3", None),
        (ModelRef("churn", "2"), "", None),
        (ModelRef("churn", "2"), "@champion", ModelRef("churn", "2", "champion")),
        (ModelRef("churn", alias="champion"), "2", ModelRef("churn", "2", "champion")),
        (ModelRef("churn", alias="champion"), "@champion", ModelRef("churn", alias="champion")),
        (ModelRef("churn", alias="champion"), "@other", None),
    ],
)
def test_a_body_narrows_what_its_path_asks_for_or_contradicts_it(ref, version, found):
    assert narrowed(ref, version) == found

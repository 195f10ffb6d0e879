"""What may be loaded at all, and the commands that a refusal prints."""

from __future__ import annotations

import hashlib
import shlex
from dataclasses import replace

import pytest

from fitserve.errors import ArtifactError, UntrustedArtifactError
from fitserve.signature import Field
from fitserve.trust.judge import remedies, require_vouched
from fitserve.trust.policy import TrustPolicy
from fitserve.types import Artifact, Declared

DATA = b"the bytes"
DIGEST = hashlib.sha256(DATA).hexdigest()
ARTIFACT = Artifact("model", "1", DIGEST, DATA, "model.joblib")
PINNED = frozenset({DIGEST})


def judged(policy, *, holds_code=True, format_name="torch", signature=None):
    artifact = replace(ARTIFACT, signature=signature)
    return require_vouched(artifact, holds_code=holds_code, format_name=format_name, policy=policy)


@pytest.mark.parametrize("level", ["data", "allowlist", "pinned", "any"])
def test_data_is_let_through_under_every_level(level):
    assert judged(TrustPolicy(level), holds_code=False, format_name="onnx") is False


@pytest.mark.parametrize(
    ("policy", "is_let"),
    [
        (TrustPolicy("data"), False),
        (TrustPolicy("data", pins=PINNED), False),
        (TrustPolicy("allowlist"), False),
        (TrustPolicy("allowlist", pins=PINNED), False),
        (TrustPolicy("pinned"), False),
        (TrustPolicy("pinned", pins=PINNED), True),
        (TrustPolicy("any"), True),
    ],
)
def test_code_needs_a_pin_or_the_level_any(policy, is_let):
    if is_let:
        judged(policy)
    else:
        with pytest.raises(UntrustedArtifactError, match="of the format 'torch'") as caught:
            judged(policy)
        assert caught.value.digest == DIGEST


def test_a_pickle_is_left_to_the_allow_list():
    assert judged(TrustPolicy("allowlist"), format_name="pickle") is False
    assert judged(TrustPolicy("pinned", pins=PINNED), format_name="pickle") is True
    with pytest.raises(UntrustedArtifactError, match="trust level 'data'"):
        judged(TrustPolicy("data"), format_name="pickle")


@pytest.mark.parametrize("level", ["data", "allowlist", "pinned", "any"])
def test_with_pins_only_pinned_bytes_are_let_through(level):
    with pytest.raises(UntrustedArtifactError, match=f"is not what was pinned: its digest is sha256:{DIGEST}"):
        judged(TrustPolicy(level, pins=frozenset({"0" * 64})), holds_code=False, format_name="onnx")


def test_with_a_key_an_artifact_without_signature_is_refused(tmp_path):
    with pytest.raises(UntrustedArtifactError, match="has no signature"):
        judged(TrustPolicy("any", verify_key=tmp_path / "key.pub"), holds_code=False, format_name="onnx")


def test_a_key_that_is_none_is_told(tmp_path):
    (tmp_path / "key.pub").write_text("no key")

    with pytest.raises(ArtifactError, match="verify_key is no public key"):
        judged(TrustPolicy("pinned", verify_key=tmp_path / "key.pub"), signature=b"{}")


def test_the_remedies_are_commands_for_a_shell():
    error = UntrustedArtifactError("needs", digest=DIGEST, missing=["a.b.C", "d.E"])

    commands = remedies(error, "my models/churn v2.joblib", TrustPolicy())

    assert [shlex.split(command) for command in commands] == [
        ["fitserve", "run", "my models/churn v2.joblib", "--allow", "a.b.C", "--allow", "d.E"],
        ["fitserve", "run", "my models/churn v2.joblib", "--pin", f"sha256:{DIGEST}"],
        ["fitserve", "convert", "my models/churn v2.joblib", "my models/churn v2.skops", "--pin", f"sha256:{DIGEST}"],
    ]  # fmt: skip


def test_a_path_that_looks_like_an_option_stays_a_path():
    error = UntrustedArtifactError("needs", digest=DIGEST, missing=["a.b.C"])

    assert shlex.split(remedies(error, "-rf; touch x", TrustPolicy())[0])[2] == "./-rf; touch x"


@pytest.mark.parametrize("missing", [["a:b.c", "d.E"], ["a b.c; rm"], []])
def test_what_no_name_can_mend_is_left_to_the_pin(missing):
    commands = remedies(UntrustedArtifactError("needs", digest=DIGEST, missing=missing), "m.pkl", TrustPolicy())

    assert not any("--allow" in command for command in commands)
    assert commands[0] == f"fitserve run m.pkl --pin sha256:{DIGEST}"


def test_what_a_notebook_defined_is_mended_by_no_policy():
    assert (
        remedies(UntrustedArtifactError("uses", digest=DIGEST, missing=["__main__.C", "d.E"]), "m.pkl", TrustPolicy())
        == ()
    )


def test_under_data_the_way_out_is_the_allow_list():
    commands = remedies(UntrustedArtifactError("is of the format", digest=DIGEST), "m.pkl", TrustPolicy("data"))

    assert commands == ("fitserve run m.pkl --trust allowlist",)


def test_a_pin_or_a_key_that_does_not_fit_is_not_undone(tmp_path):
    error = UntrustedArtifactError("is not what was pinned", digest=DIGEST)

    assert remedies(error, "m.pkl", TrustPolicy("pinned", pins=frozenset({"0" * 64}))) == ()
    assert remedies(error, "m.pkl", TrustPolicy("pinned", verify_key=tmp_path / "key.pub")) == ()


def test_what_the_operator_gave_stays_in_the_commands(tmp_path):
    error = UntrustedArtifactError("needs", digest=DIGEST, missing=["d.E"])
    policy = TrustPolicy(allow=frozenset({"a.B"}), code_path=(tmp_path,))

    first, *others = remedies(error, "m.skops", policy)

    assert first == f"fitserve run m.skops --allow a.B --allow d.E --code-path {tmp_path}"
    assert others == [f"fitserve run m.skops --pin sha256:{DIGEST} --code-path {tmp_path}"]


def test_a_class_of_ones_own_is_named_by_its_folder():
    commands = remedies(UntrustedArtifactError("is Python code", digest=DIGEST), "models/model.py", TrustPolicy())

    assert commands[0] == "fitserve run models/model.py --code-path models"


@pytest.mark.parametrize(
    "declared",
    [Declared(classes=("yes", "no")), Declared(fields=(Field("x"),)), Declared(mlflow_fields=(Field("x"),))],
)
def test_a_pin_does_not_vouch_for_a_manifest_beside_the_file(declared):
    beside = replace(ARTIFACT, declared=declared)
    inside = replace(beside, files={"model.onnx": DATA, "manifest.toml": b"..."})
    policy = TrustPolicy("pinned", pins=PINNED)

    with pytest.raises(UntrustedArtifactError, match="which neither a pin nor a signature of the model covers"):
        require_vouched(beside, holds_code=False, format_name="onnx", policy=policy)

    assert require_vouched(inside, holds_code=False, format_name="onnx", policy=policy)
    assert not require_vouched(beside, holds_code=False, format_name="onnx", policy=TrustPolicy())

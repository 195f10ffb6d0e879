"""A signature vouches for the bytes that were read, all of them and no others."""

from __future__ import annotations

import hashlib

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from model_signing import hashing, signing

from fitserve.errors import UntrustedArtifactError
from fitserve.trust.judge import require_vouched
from fitserve.trust.policy import TrustPolicy
from fitserve.trust.signing import verify_signature
from fitserve.types import Artifact

FILES = {"MLmodel": b"flavors: {}", "data/model.pkl": b"\x80\x04."}


class Keys:
    def __init__(self, folder):
        self.private, self.public = folder / "key", folder / "key.pub"
        key = ec.generate_private_key(ec.SECP256R1())
        form = serialization.PrivateFormat.PKCS8
        self.private.write_bytes(key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption()))
        form = serialization.PublicFormat.SubjectPublicKeyInfo
        self.public.write_bytes(key.public_key().public_bytes(serialization.Encoding.PEM, form))

    def sign(self, path, config=None) -> bytes:
        signer = signing.Config().use_elliptic_key_signer(private_key=self.private)
        if config is not None:
            signer.set_hashing_config(config)
        beside = self.private.with_name("model.sig")
        signer.sign(path, beside)
        return beside.read_bytes()


@pytest.fixture(scope="module")
def keys(tmp_path_factory):
    return Keys(tmp_path_factory.mktemp("keys"))


def folder_of(files, folder):
    for name, data in files.items():
        path = folder / "model" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return folder / "model"


def test_what_was_signed_passes(keys, tmp_path):
    signature = keys.sign(folder_of(FILES, tmp_path))

    verify_signature(FILES, signature, keys.public)


@pytest.mark.parametrize(
    "files",
    [
        FILES | {"data/model.pkl": b"other"},
        FILES | {"more.py": b""},
        FILES | {".gitignore": b""},
        FILES | {".git/hooks/x": b""},
        {"MLmodel": FILES["MLmodel"]},
    ],
    ids=["changed", "added", "ignored by the library", "in an ignored folder", "left out"],
)
def test_other_bytes_do_not(files, keys, tmp_path):
    signature = keys.sign(folder_of(FILES, tmp_path))

    with pytest.raises(UntrustedArtifactError, match="signed") as caught:
        verify_signature(files, signature, keys.public, digest="d")

    assert caught.value.digest == "d"


def test_files_that_the_signature_ignores_are_not_signed(keys, tmp_path):
    path = folder_of(FILES | {"code.py": b"1"}, tmp_path)
    signature = keys.sign(path, hashing.Config().set_ignored_paths(paths=["code.py"]))

    with pytest.raises(UntrustedArtifactError, match=r"not signed: code\.py"):
        verify_signature(FILES | {"code.py": b"2"}, signature, keys.public)


def test_a_single_file_may_be_signed_as_itself_or_in_its_folder(keys, tmp_path):
    path = folder_of({"m.joblib": b"abc"}, tmp_path)

    for signed in (path / "m.joblib", path):
        signature = keys.sign(signed)
        verify_signature({"m.joblib": b"abc"}, signature, keys.public)
        with pytest.raises(UntrustedArtifactError):
            verify_signature({"m.joblib": b"abd"}, signature, keys.public)


def test_another_key_or_no_signature_does_not(keys, tmp_path):
    other = Keys(tmp_path)
    signature = other.sign(folder_of(FILES, tmp_path))

    for given in (signature, b"", b"{}", b"\x80"):
        with pytest.raises(UntrustedArtifactError, match="is not what the owner of the key has signed"):
            verify_signature(FILES, given, keys.public)


def test_a_signed_artifact_is_vouched_for(keys, tmp_path):
    signature = keys.sign(folder_of({"m.joblib": b"abc"}, tmp_path) / "m.joblib")
    artifact = Artifact("m", "1", hashlib.sha256(b"abc").hexdigest(), b"abc", "m.joblib", signature=signature)
    policy = TrustPolicy("pinned", verify_key=keys.public)

    assert require_vouched(artifact, holds_code=True, format_name="python", policy=policy) is True

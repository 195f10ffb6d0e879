"""TorchScript and exported programs: what is refused without torch, and what is served with it."""

from __future__ import annotations

import importlib.util
import io
import zipfile

import numpy as np
import pytest

from fitserve.errors import ArtifactError, UntrustedArtifactError
from fitserve.formats.torch import FORMAT
from fitserve.signature import Field
from fitserve.trust.policy import TrustPolicy
from fitserve.types import Artifact, Declared

ANY = TrustPolicy(level="any")
HAS_TORCH = importlib.util.find_spec("torch") is not None
SCRIPT = ("a/data.pkl", "a/constants.pkl", "a/code/__torch__.py", "a/version")
PROGRAM = ("a/models/model.json", "a/archive_format", "a/archive_version")
PICKLE = ("a/data.pkl", "a/version")


def archive(*names: str, compression: int = zipfile.ZIP_STORED, n_bytes: int = 100) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", compression) as made:
        for name in names:
            made.writestr(name, b"x" * n_bytes)
    return file.getvalue()


def artifact(data: bytes, **declared) -> Artifact:
    return Artifact("m", "1", "d" * 64, data, "m.pt", declared=Declared(**declared))


@pytest.mark.parametrize("names", [SCRIPT, PROGRAM, PICKLE], ids=["script", "program", "pickle"])
def test_archives_of_torch_are_known_by_their_members(names):
    assert FORMAT.matches(artifact(archive(*names)))


@pytest.mark.parametrize(
    "data",
    [b"", b"PK\x03\x04", archive("schema.json", "1.npy"), archive("a/x"), b"\x80\x02"],
    ids=["empty", "truncated", "skops", "zip", "pickle"],
)
def test_other_files_are_not_taken_for_torch(data):
    assert not FORMAT.matches(artifact(data))


def test_weights_alone_are_refused_with_what_to_save_instead():
    with pytest.raises(ArtifactError, match=r"was written by torch.save.*torch.export.save.*torch.jit.save"):
        FORMAT.load(artifact(archive(*PICKLE)), ANY)


@pytest.mark.parametrize("names", [SCRIPT, PROGRAM], ids=["script", "program"])
@pytest.mark.parametrize(
    "policy", [TrustPolicy(level="data"), TrustPolicy(), TrustPolicy("pinned", pins=frozenset({"e" * 64}))]
)
def test_a_program_that_nothing_vouches_for_is_not_loaded(names, policy):
    with pytest.raises(UntrustedArtifactError, match=f"pin it: --pin sha256:{'d' * 64}"):
        FORMAT.load(artifact(archive(*names)), policy)


def test_a_member_that_unpacks_to_too_much_is_refused_before_torch_sees_it(monkeypatch):
    monkeypatch.setattr("fitserve.formats.torch.MOST_COMPRESSED_BYTES", 10_000)

    with pytest.raises(ArtifactError, match="unpack to more than"):
        FORMAT.load(artifact(archive(*SCRIPT, compression=zipfile.ZIP_DEFLATED, n_bytes=5_000)), ANY)


@pytest.mark.skipif(HAS_TORCH, reason="torch is installed here: nothing is missing")
def test_without_torch_it_says_what_to_install():
    with pytest.raises(ArtifactError, match=r"needs the package 'torch'.*pip install 'fitserve\[torch\]'"):
        FORMAT.load(artifact(archive(*SCRIPT)), ANY)


@pytest.fixture(scope="module")
def torch():
    return pytest.importorskip("torch", reason="torch is not in the all extra: it is larger than all of it")


@pytest.fixture(scope="module")
def network(torch):
    torch.manual_seed(0)
    return torch.nn.Sequential(
        torch.nn.Linear(3, 4), torch.nn.ReLU(), torch.nn.Linear(4, 2), torch.nn.Softmax(1)
    ).eval()


def script(torch, module) -> bytes:
    file = io.BytesIO()
    torch.jit.save(torch.jit.script(module), file)
    return file.getvalue()


def program(torch, module, example, **options) -> bytes:
    file = io.BytesIO()
    torch.export.save(torch.export.export(module, (example,), **options), file)
    return file.getvalue()


ROWS = [[1.0, 2.0, 3.0], [-1.0, 0.5, 9.0]]


def wanted_of(torch, module):
    with torch.inference_mode():
        return module(torch.tensor(ROWS)).numpy()


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_scripted_module_takes_the_declared_fields(torch, network):
    fields = tuple(Field(name) for name in "abc")

    model = FORMAT.load(artifact(script(torch, network), fields=fields), ANY)
    outputs = model.predict(model.signature.check(ROWS))

    assert model.signature.names == ("a", "b", "c")
    assert model.signature.n_outputs == 2
    np.testing.assert_allclose(outputs.predictions, wanted_of(torch, network), rtol=1e-6)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_scripted_module_that_nobody_tells_of_takes_rows_of_numbers(torch, network):
    model = FORMAT.load(artifact(script(torch, network)), ANY)

    assert model.signature.is_open
    assert model.predict(model.signature.check(ROWS)).predictions.shape == (2, 2)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_an_exported_program_tells_its_width(torch, network):
    free = {"input": {0: torch.export.Dim("rows", min=1)}}
    data = program(torch, network, torch.zeros(2, 3), dynamic_shapes=free)

    model = FORMAT.load(artifact(data), ANY)
    outputs = model.predict(model.signature.check(ROWS))

    assert model.signature.names == ("x0", "x1", "x2")
    assert model.facts.model_type == "exported program"
    np.testing.assert_allclose(outputs.predictions, wanted_of(torch, network), rtol=1e-6)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_a_program_exported_for_one_row_is_run_for_each_and_for_more_refused(torch, network):
    one = program(torch, network, torch.zeros(1, 3))
    five = program(torch, network, torch.zeros(5, 3))

    model = FORMAT.load(artifact(one, classes=("no", "yes")), ANY)
    outputs = model.predict(model.signature.check(ROWS))

    wanted = wanted_of(torch, network)
    assert outputs.predictions.tolist() == [("no", "yes")[index] for index in wanted.argmax(axis=1)]
    np.testing.assert_allclose(outputs.probabilities[0], wanted, rtol=1e-6)
    with pytest.raises(ArtifactError, match="takes exactly 5 rows at a time"):
        FORMAT.load(artifact(five), ANY)


@pytest.mark.parametrize("names", [SCRIPT, PROGRAM], ids=["script", "program"])
def test_an_archive_that_torch_cannot_read_is_refused(torch, names):
    with pytest.raises(ArtifactError, match="is refused by torch"):
        FORMAT.load(artifact(archive(*names)), ANY)

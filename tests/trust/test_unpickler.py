"""Pickles: hostile ones run nothing, benign ones predict as before, refusals say what to do."""

from __future__ import annotations

import hashlib
import io
import pickle
import sys
import zlib

import hostile_files
import joblib
import numpy as np
import pytest
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.preprocessing import FunctionTransformer

from fitserve.errors import ArtifactError, UntrustedArtifactError
from fitserve.trust.allowlist import current_name, parse, uses_of
from fitserve.trust.machine import MAX_STATE_ITEMS
from fitserve.trust.policy import TrustPolicy
from fitserve.trust.scan import Scan
from fitserve.trust.stream import Stream
from fitserve.trust.structure import check_structure
from fitserve.trust.unpickler import load_pickle

DIGEST = "a" * 64
POLICY = TrustPolicy()
HOSTILE = sorted(hostile_files.pickles("/nowhere/marker"))
CODE = sorted({**hostile_files.direct_calls(""), **hostile_files.indirections("")})


@pytest.fixture(scope="module")
def marker(tmp_path_factory):
    return tmp_path_factory.mktemp("hostile") / "marker"


@pytest.fixture(scope="module")
def hostile(marker):
    return hostile_files.pickles(marker)


def test_the_corpus_is_as_large_as_it_was():
    assert len(HOSTILE) >= 150


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_file_is_refused_and_runs_nothing(name, hostile, marker):
    with pytest.raises(ArtifactError, match="^(is|needs|uses|holds) "):
        load_pickle(hostile[name], POLICY, digest=DIGEST)

    assert not marker.exists()


@pytest.mark.parametrize("name", sorted(hostile_files.benign()))
def test_a_benign_file_predicts_as_before(name):
    X, _ = hostile_files.table()
    original = hostile_files.benign_models()[name.partition(" ")[0] if "protocol" in name or "forest" in name else name]

    loaded = load_pickle(hostile_files.benign()[name], POLICY, digest=DIGEST)

    np.testing.assert_array_equal(loaded.predict(X), original.predict(X))


def test_a_refusal_names_all_that_is_missing_and_the_digest():
    model = [FunctionTransformer(np.polyval), FunctionTransformer(np.vander), LogisticRegression()]

    with pytest.raises(UntrustedArtifactError, match="needs numpy.polyval, numpy.vander, which are not on") as caught:
        load_pickle(pickle.dumps(model), POLICY, digest=DIGEST)

    assert caught.value.missing == ("numpy.polyval", "numpy.vander")
    assert caught.value.digest == DIGEST


def test_a_refusal_imports_nothing():
    data = hostile_files.file(hostile_files.name("antigravity", "geohash"))

    with pytest.raises(UntrustedArtifactError):
        load_pickle(data, POLICY, digest=DIGEST)

    assert "antigravity" not in sys.modules


def test_names_that_the_operator_adds_are_allowed_and_no_others():
    model = FunctionTransformer(np.vander)
    allowing = TrustPolicy(allow=frozenset({"numpy.vander"}))

    assert load_pickle(pickle.dumps(model), allowing, digest=DIGEST).func is np.vander
    with pytest.raises(UntrustedArtifactError):
        load_pickle(pickle.dumps(FunctionTransformer(np.polyval)), allowing, digest=DIGEST)


@pytest.mark.parametrize("name", ["sklearn.utils.os.system", "sklearn.utils.validation.np"])
def test_an_added_name_must_be_the_thing_itself(name, tmp_path):
    module, _, attribute = name.rpartition(".")
    data = hostile_files.file(hostile_files.call(hostile_files.name(module, attribute), hostile_files.text("true")))

    with pytest.raises(ArtifactError):
        load_pickle(data, TrustPolicy(allow=frozenset({name})), digest=DIGEST)


def test_a_dotted_name_is_refused_even_when_it_was_added():
    data = hostile_files.file(hostile_files.name("collections", "OrderedDict.fromkeys"))
    policy = TrustPolicy(allow=frozenset({"collections.OrderedDict.fromkeys", "collections:OrderedDict.fromkeys"}))

    with pytest.raises(ArtifactError, match="OrderedDict.fromkeys"):
        load_pickle(data, policy, digest=DIGEST)


def test_the_level_data_takes_no_pickle():
    with pytest.raises(UntrustedArtifactError, match="'data' takes formats that hold none"):
        load_pickle(hostile_files.benign()["logistic"], TrustPolicy("data"), digest=DIGEST)


@pytest.mark.parametrize(
    ("policy", "is_signed"),
    [
        (TrustPolicy("any"), False),
        (TrustPolicy("pinned", pins=frozenset({DIGEST})), False),
        (TrustPolicy("pinned"), True),
    ],
    ids=["any", "pin", "signature"],
)
def test_what_is_vouched_for_is_loaded_whatever_it_needs(policy, is_signed):
    model = FunctionTransformer(np.vander)

    assert load_pickle(pickle.dumps(model), policy, digest=DIGEST, is_signed=is_signed).func is np.vander


@pytest.mark.parametrize("policy", [TrustPolicy("pinned"), TrustPolicy("allowlist", pins=frozenset({DIGEST}))])
def test_what_is_not_vouched_for_goes_by_the_list(policy):
    with pytest.raises(UntrustedArtifactError, match=r"needs numpy\.vander"):
        load_pickle(pickle.dumps(FunctionTransformer(np.vander)), policy, digest=DIGEST)


def test_bytes_that_are_not_pinned_are_refused_under_every_level():
    policy = TrustPolicy("any", pins=frozenset({"b" * 64}))

    with pytest.raises(UntrustedArtifactError, match="is not what was pinned: its digest is sha256:aaaa"):
        load_pickle(hostile_files.benign()["logistic"], policy, digest=DIGEST)


def test_native_state_is_checked_in_what_is_vouched_for_too(hostile):
    with pytest.raises(ArtifactError, match="a child that cannot be its own"):
        load_pickle(hostile["corrupt tree left outside"], TrustPolicy("any"), digest=DIGEST)


def test_a_class_of_a_notebook_is_named_with_what_to_add():
    data = hostile_files.file(hostile_files.new(hostile_files.name("__main__", "LogBins")))

    for policy in (POLICY, TrustPolicy("any")):
        with pytest.raises(ArtifactError, match=r"uses LogBins, defined in a notebook .*logbins\.py.*--code-path DIR"):
            load_pickle(data, policy, digest=DIGEST)


def test_a_missing_package_is_named():
    data = hostile_files.file(hostile_files.new(hostile_files.name("no_such_package.bins", "Bins")))
    policy = TrustPolicy(allow=frozenset({"no_such_package.bins.Bins"}))

    with pytest.raises(ArtifactError, match="needs the package 'no_such_package', which is not installed here"):
        load_pickle(data, policy, digest=DIGEST)


def test_a_name_of_an_older_numpy_is_found():
    data = pickle.dumps(np.arange(3.0), protocol=2).replace(b"numpy._core.multiarray", b"numpy.core.multiarray")

    np.testing.assert_array_equal(load_pickle(data, POLICY, digest=DIGEST), np.arange(3.0))
    assert current_name("numpy.core.numeric._frombuffer") == "numpy._core.numeric._frombuffer"


ARRAYS = [
    np.arange(6.0).reshape(2, 3), np.asfortranarray(np.arange(6).reshape(2, 3)), np.array(3.5), np.empty((0, 4)),
    np.array([1, 2], ">i4"), np.array(["a", "bb"]), np.array([b"a"]), np.array([True]), np.array([1 + 2j]),
    np.array(["2026-01-01"], "M8[D]"), np.array([(1, 2.5)], dtype=[("a", "i4"), ("b", "f8")]),
    np.array([(1, 2.5)], dtype=np.dtype([("a", "i1"), ("b", "f8")], align=True)), np.zeros(2, dtype=[("a", "f4", (3,))]),
    np.array([1, "a", None, [2.0]], dtype=object), np.array([[1, "a"]], dtype=object, order="F"),
]  # fmt: skip


@pytest.mark.parametrize("array", ARRAYS, ids=lambda array: f"{array.dtype}{array.shape}")
@pytest.mark.parametrize("write", [joblib.dump, pickle.dump], ids=["joblib", "pickle"])
def test_arrays_of_each_kind_come_back(array, write):
    file = io.BytesIO()
    write([array, array], file)

    first, second = load_pickle(file.getvalue(), POLICY, digest=DIGEST)

    assert first is second or write is joblib.dump
    assert first.dtype == array.dtype.newbyteorder("=") or write is pickle.dump
    assert first.flags.writeable
    np.testing.assert_array_equal(first, array)


def test_an_optimised_pickle_is_read():
    import pickletools

    data = pickletools.optimize(pickle.dumps(hostile_files.benign_models()["forest"], protocol=4))

    assert len(load_pickle(data, POLICY, digest=DIGEST).estimators_) == 10


def test_a_compressed_file_of_another_kind_says_what_it_is():
    with pytest.raises(ArtifactError, match="is no joblib or pickle file"):
        load_pickle(zlib.compress(b"hello"), POLICY, digest=DIGEST)


@pytest.mark.parametrize("line", ["os.system", "os.system run", "system call", "a.b new\na.b call", "a.*.c new"])
def test_a_line_that_is_none_is_no_allow_list(line):
    with pytest.raises(ValueError, match="is no line of it"):
        parse(line)


def test_a_prefix_of_a_listed_name_is_not_listed():
    assert uses_of("sklearn.tree._tree.Tree", POLICY)
    assert not uses_of("sklearn.tree._tree", POLICY)
    assert not uses_of("sklearn.tree._tree.Tree.__reduce__", POLICY)


@pytest.mark.parametrize("change", ["a length", "no model", "a path"])
def test_a_catboost_model_is_looked_at_before_catboost_sees_it(change):
    import catboost

    data = catboost.CatBoostRegressor(iterations=2, depth=2, verbose=False, allow_writing_files=False)
    data.fit(np.arange(20.0).reshape(10, 2), np.arange(10.0))
    state = data.__getstate__()
    model = bytearray(state["__model"])
    model[4:8] = b"\xff\xff\xff\x7f"
    state["__model"] = {"a length": bytes(model), "no model": None, "a path": "/etc/passwd"}[change]
    inner = pickle.dumps(state, protocol=2)[2:-1]
    made = hostile_files.new(hostile_files.name("catboost.core", "CatBoostRegressor"))

    with pytest.raises(ArtifactError, match="is damaged"):
        load_pickle(b"\x80\x04" + hostile_files.build(made, inner) + b".", POLICY, digest=DIGEST)


@pytest.mark.parametrize("module", ["neighbors._kd_tree", "neighbors._ball_tree", "metrics._dist_metrics"])
@pytest.mark.parametrize(
    "cls", ["numpy.random._generator.Generator", "numpy.random._mt19937.MT19937", "sklearn.linear_model._ridge.Ridge"]
)
def test_nothing_else_is_made_empty(module, cls):
    maker = hostile_files.name(f"sklearn.{module}", "newObj")
    data = hostile_files.file(hostile_files.call(maker, hostile_files.name(*cls.rsplit(".", 1))))

    with pytest.raises(ArtifactError, match="is made oddly"):
        load_pickle(data, POLICY, digest=DIGEST)


def test_the_state_of_a_generator_inside_of_another_is_checked():
    generator = np.random.Generator(np.random.MT19937(0))
    state = generator.bit_generator.state
    state["state"]["pos"] = 100_000
    generator.bit_generator.state = state

    with pytest.raises(ArtifactError, match="a random generator's position lies outside its state"):
        check_structure({"a": generator})


def pickled() -> bytes:
    return pickle.dumps(LinearRegression().fit([[1.0], [2.0]], [1.0, 2.0]))


@pytest.mark.parametrize("level", ["allowlist", "pinned", "any"])
def test_a_pickle_is_loaded_from_a_map_of_its_file(level):
    data = pickled()
    digest = hashlib.sha256(data).hexdigest()

    loaded = load_pickle(memoryview(data), TrustPolicy(level, pins=frozenset({digest})), digest=digest)

    assert loaded.coef_ == pytest.approx([1.0])


def test_what_is_no_pickle_is_told_from_a_map_too():
    for data in (b"", b"\x80", b"\x80\x01.", b"no pickle"):
        with pytest.raises(ArtifactError):
            load_pickle(memoryview(data), POLICY, digest=DIGEST)


@pytest.mark.parametrize("level", ["pinned", "any"])
def test_a_map_that_changed_since_it_was_hashed_is_not_taken_on_trust(level):
    digest = hashlib.sha256(pickled()).hexdigest()
    changed = memoryview(pickle.dumps(LinearRegression().fit([[1.0], [2.0]], [1.0, 3.0])))
    with pytest.raises(ArtifactError, match="changed while it was loaded"):
        load_pickle(changed, TrustPolicy(level, pins=frozenset({digest})), digest=digest)


@pytest.mark.parametrize("length", [1, 62, 63, 64, 65, 255, 256, 257, 5000])
def test_a_stream_reads_whole_lines_and_whole_blocks(length):
    line = b"x" * (length - 1) + b"\n"
    stream = Stream(memoryview(line * 2 + b"rest"))

    assert [stream.readline(), stream.readline(), stream.remaining] == [line, line, 4]
    with pytest.raises(EOFError):
        stream.readline()
    with pytest.raises(EOFError):
        stream.read(5)
    stream.skip(1)
    assert [stream.read(1), stream.read(0), stream.read(), stream.remaining] == [b"e", b"", b"st", 0]


@pytest.mark.parametrize("container", ["dict", "set", "frozenset"])
def test_keys_cannot_share_one_hash(container):
    keys = [hostile_files.number(i * (2**61 - 1)) for i in range(3)]
    bodies = {
        "dict": b"}(" + b"".join(key + b"N" for key in keys) + b"u",
        "set": b"\x8f(" + b"".join(keys) + b"\x90",
        "frozenset": b"(" + b"".join(keys) + b"\x91",
    }

    with pytest.raises(ArtifactError, match="huge numbers as keys"):
        load_pickle(hostile_files.file(bodies[container]), POLICY, digest=DIGEST)


def test_the_memo_is_not_searched_whole_for_each_dtype():
    machine = Scan(Stream(b""))
    machine.memo = CountingMemo(dict.fromkeys(range(100000)))
    machine.stack = [np.dtype("f8")]

    machine._replace(machine.stack[-1], np.dtype("f4"))

    assert machine.memo.n_read <= MAX_STATE_ITEMS


class CountingMemo(dict):
    n_read = 0

    def __getitem__(self, key):
        self.n_read += 1
        return super().__getitem__(key)

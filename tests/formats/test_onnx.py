"""ONNX models: signatures from the session, outputs by trial, nothing read from beyond the bytes."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper
from skl2onnx import convert_sklearn
from skl2onnx.common.data_types import DoubleTensorType, FloatTensorType, StringTensorType
from sklearn.compose import make_column_transformer
from sklearn.datasets import load_iris
from sklearn.ensemble import IsolationForest, RandomForestClassifier
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.multioutput import MultiOutputClassifier
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from sklearn.svm import LinearSVC

from fitserve.errors import ArtifactError, InvalidInputError
from fitserve.estimators.onnx_graph import looks_like_model, read_graph
from fitserve.formats.onnx import FORMAT
from fitserve.signature import Field
from fitserve.trust.policy import TrustPolicy
from fitserve.types import Artifact, Declared

OPSET = {"": 18, "ai.onnx.ml": 3}
X, Y = load_iris(return_X_y=True)
SPECIES = load_iris().target_names[Y]


def artifact(data: bytes, files: dict[str, bytes] | None = None, **declared) -> Artifact:
    return Artifact("m", "1", "0" * 64, data, "m.onnx", files or {}, Declared(**declared))


def load(data: bytes, files: dict[str, bytes] | None = None, **declared):
    return FORMAT.load(artifact(data, files, **declared), TrustPolicy())


def converted(estimator, *, tensor=FloatTensorType, **options) -> bytes:
    given = {id(estimator): options} if options else None
    return convert_sklearn(
        estimator, initial_types=[("X", tensor([None, 4]))], options=given, target_opset=OPSET
    ).SerializeToString()


def network(nodes, inputs, outputs, initializers=(), **graph) -> bytes:
    """A graph written by hand; inputs and outputs are (name, datatype, shape)."""
    infos = [[helper.make_tensor_value_info(*info) for info in side] for side in (inputs, outputs)]
    made = helper.make_graph(nodes, "g", *infos, initializer=list(initializers), **graph)
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("ai.onnx.ml", 3)]
    return helper.make_model(made, opset_imports=opsets, ir_version=9).SerializeToString()


def predicted(model, rows, *asked):
    return model.predict(model.signature.check(rows), asked)


FLOAT, DOUBLE, INT64 = TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.INT64
IDENTITY = helper.make_node("Identity", ["x"], ["y"])


@pytest.mark.parametrize("zipmap", [False, True, "columns"])
@pytest.mark.parametrize("y", [Y, SPECIES], ids=["integers", "strings"])
def test_a_classifier_answers_as_its_estimator_does_in_every_form_of_its_probabilities(zipmap, y):
    estimator = LogisticRegression(max_iter=1000).fit(X, y)

    model = load(converted(estimator, zipmap=zipmap))
    outputs = predicted(model, X.tolist())

    assert model.signature.classes == (tuple(np.unique(y).tolist()),)
    assert outputs.predictions.tolist() == estimator.predict(X).tolist()
    np.testing.assert_allclose(outputs.probabilities[0], estimator.predict_proba(X), atol=1e-6)  # float32
    assert model.signature.outputs == ("predict", "predict_proba")


@pytest.mark.parametrize("estimator", [KNeighborsClassifier(), RandomForestClassifier(5, random_state=0)], ids=repr)
def test_classes_are_found_in_attributes_and_in_constants(estimator):
    model = load(converted(estimator.fit(X, SPECIES), zipmap=False))

    assert model.signature.classes == (("setosa", "versicolor", "virginica"),)
    assert model.signature.has_probabilities


def test_doubles_are_computed_in_float64():
    estimator = make_pipeline(StandardScaler(), LogisticRegression()).fit(X, Y)

    model = load(converted(estimator, tensor=DoubleTensorType, zipmap=False))
    outputs = predicted(model, X.tolist())

    np.testing.assert_allclose(outputs.probabilities[0], estimator.predict_proba(X), atol=1e-13)


def test_scores_that_are_no_probabilities_are_offered_as_a_decision_function():
    estimator = LinearSVC().fit(X, Y)

    model = load(converted(estimator))
    outputs = predicted(model, X.tolist(), "decision_function")

    assert model.signature.outputs == ("predict", "decision_function")
    assert outputs.probabilities is None
    np.testing.assert_allclose(outputs.extras["decision_function"], estimator.decision_function(X), atol=1e-5)


def test_an_outlier_detector_gives_a_label_and_a_score_a_row():
    estimator = IsolationForest(n_estimators=5, random_state=0).fit(X)

    outputs = predicted(load(converted(estimator)), X.tolist(), "decision_function")

    assert outputs.predictions.tolist() == estimator.predict(X).tolist()
    np.testing.assert_allclose(outputs.extras["decision_function"], estimator.decision_function(X), atol=1e-6)


def test_a_regressor_gives_a_number_and_one_of_several_outputs_a_list():
    one, two = Ridge().fit(X, X[:, 0]), Ridge().fit(X, X[:, :2])

    single, double = load(converted(one)), load(converted(two))

    assert predicted(single, X[:2].tolist()).predictions.shape == (2,)
    assert (single.signature.n_outputs, double.signature.n_outputs) == (0, 2)
    np.testing.assert_allclose(predicted(double, X.tolist()).predictions, two.predict(X), atol=1e-5)


def test_a_classifier_of_several_outputs_gives_a_list_of_labels():
    targets = np.column_stack([Y, Y % 2])
    estimator = MultiOutputClassifier(LogisticRegression(max_iter=1000)).fit(X, targets)

    model = load(converted(estimator, zipmap=False))

    assert model.signature.n_outputs == 2
    assert predicted(model, X.tolist()).predictions.tolist() == estimator.predict(X).tolist()


def test_columns_of_texts_and_numbers_are_named_fields():
    import pandas as pd

    table = pd.DataFrame({"city": ["Rome", "Oslo", "Rome", "Oslo"], "age": [20.0, 30.0, 40.0, 50.0]})
    steps = make_column_transformer((OneHotEncoder(handle_unknown="ignore"), ["city"]), (StandardScaler(), ["age"]))
    estimator = make_pipeline(steps, LogisticRegression()).fit(table, [0, 0, 1, 1])
    types = [("city", StringTensorType([None, 1])), ("age", FloatTensorType([None, 1]))]
    data = convert_sklearn(
        estimator, initial_types=types, options={id(estimator): {"zipmap": False}}, target_opset=OPSET
    ).SerializeToString()

    model = load(data)
    outputs = predicted(model, table.to_dict("records"))

    assert [(field.name, field.kind) for field in model.signature.inputs] == [("city", "string"), ("age", "number")]
    assert model.signature.is_named
    np.testing.assert_allclose(outputs.probabilities[0], estimator.predict_proba(table), atol=1e-6)


def test_a_network_of_one_number_a_row_gives_numbers_and_of_several_lists():
    one = load(network([IDENTITY], [("x", FLOAT, ["n", 1])], [("y", FLOAT, ["n", 1])]))
    three = load(network([IDENTITY], [("x", FLOAT, ["n", 3])], [("y", FLOAT, ["n", 3])]))

    assert predicted(one, [[2]]).predictions.tolist() == [2.0]
    assert predicted(three, [[1, 2, 3]]).predictions.tolist() == [[1.0, 2.0, 3.0]]
    assert three.signature.classes is None


def test_declared_classes_make_a_network_a_classifier():
    softmax = helper.make_node("Softmax", ["x"], ["y"], axis=1)
    data = network([softmax], [("x", FLOAT, ["n", 3])], [("y", FLOAT, ["n", 3])])

    model = load(data, classes=("a", "b", "c"))
    outputs = predicted(model, [[0, 5, 1], [9, 0, 0]])

    assert outputs.predictions.tolist() == ["b", "a"]
    assert outputs.probabilities[0].shape == (2, 3)


def test_declared_classes_of_another_number_are_refused():
    data = network([IDENTITY], [("x", FLOAT, ["n", 3])], [("y", FLOAT, ["n", 3])])

    with pytest.raises(ArtifactError, match="gives 3 numbers a row, but 4 classes are declared"):
        load(data, classes=("a", "b", "c", "d"))


def test_a_model_that_takes_one_row_at_a_time_is_run_for_each():
    model = load(network([IDENTITY], [("x", FLOAT, [1, 2])], [("y", FLOAT, [1, 2])]))

    assert predicted(model, [[1, 2], [3, 4]]).predictions.tolist() == [[1.0, 2.0], [3.0, 4.0]]


def test_a_width_that_nobody_tells_takes_rows_of_any_one_length():
    data = network([IDENTITY], [("x", FLOAT, ["n", "k"])], [("y", FLOAT, ["n", "k"])])

    open_model, told = load(data), load(data, fields=(Field("a"), Field("b")))

    assert open_model.signature.is_open
    assert predicted(open_model, [[1, 2, 3]]).predictions.tolist() == [[1.0, 2.0, 3.0]]
    assert told.signature.names == ("a", "b")


def test_integers_are_not_cut_off():
    model = load(network([IDENTITY], [("x", INT64, ["n", 2])], [("y", INT64, ["n", 2])]))

    assert predicted(model, [[1, 2.0]]).predictions.tolist() == [[1, 2]]
    with pytest.raises(InvalidInputError, match=r"row 1, column 'x1': wanted an integer"):
        predicted(model, [[1, 2], [1, 2.5]])


def test_an_example_names_the_columns_of_a_single_tensor():
    model = load(converted(Ridge().fit(X, Y)), example={"a": 1.0, "b": 2.0, "c": 3.0, "d": 4.0})

    assert model.signature.names == ("a", "b", "c", "d")
    assert model.signature.example_row() == (1.0, 2.0, 3.0, 4.0)


def test_a_null_is_taken_where_an_operator_knows_of_missing_numbers():
    impute = helper.make_node(
        "Imputer", ["x"], ["y"], domain="ai.onnx.ml", imputed_value_floats=[5.0], replaced_value_float=float("nan")
    )
    data = network([impute], [("x", FLOAT, ["n", 2])], [("y", FLOAT, ["n", 2])])

    knowing = load(data)
    ignorant = load(converted(LogisticRegression(max_iter=1000).fit(X, Y), zipmap=False))

    assert predicted(knowing, [[1, None]]).predictions.tolist() == [[1.0, 5.0]]
    assert not any(field.is_nullable for field in ignorant.signature.inputs)


def test_images_are_refused():
    data = network([IDENTITY], [("x", FLOAT, ["n", 3, 8, 8])], [("y", FLOAT, ["n", 3, 8, 8])])

    with pytest.raises(ArtifactError, match=r"takes an input 'x' of type tensor\(float\) and shape"):
        load(data)


def external(location: str) -> bytes:
    """A graph that adds a constant which lies in another file."""
    tensor = TensorProto(name="c", data_type=FLOAT, dims=[2], data_location=TensorProto.EXTERNAL)
    tensor.external_data.add(key="location", value=location)
    add = helper.make_node("Add", ["x", "c"], ["y"])
    return network([add], [("x", FLOAT, ["n", 2])], [("y", FLOAT, ["n", 2])], [tensor])


def test_numbers_in_a_file_of_the_same_model_are_read_out_of_memory():
    files = {"weights.bin": np.array([10, 20], dtype=np.float32).tobytes()}

    model = load(external("weights.bin"), files)

    assert predicted(model, [[1, 2]]).predictions.tolist() == [[11.0, 22.0]]


@pytest.mark.parametrize(
    "location",
    ["weights.bin", "../weights.bin", "/etc/passwd", "", "*/_ORT_MEM_ADDR_/*", "sub/weights.bin", "..\\weights.bin"],
)
def test_numbers_in_any_other_file_are_refused(location, tmp_path, monkeypatch):
    (tmp_path / "weights.bin").write_bytes(bytes(8))
    monkeypatch.chdir(tmp_path)

    with pytest.raises(ArtifactError, match="keeps numbers in another file"):
        load(external(location), {"sub/weights.bin": bytes(8)})


def hidden_in(place: str) -> bytes:
    """An external tensor at a place where a check of the main graph's initializers would not look."""
    tensor = TensorProto(name="c", data_type=FLOAT, dims=[2], data_location=TensorProto.EXTERNAL)
    tensor.external_data.add(key="location", value="secrets")
    inner = helper.make_node("Constant", [], ["c"], value=tensor)
    graph = helper.make_graph([inner], "inner", [], [helper.make_tensor_value_info("c", FLOAT, [2])])
    model = onnx.ModelProto.FromString(network([IDENTITY], [("x", FLOAT, ["n", 2])], [("y", FLOAT, ["n", 2])]))
    if place == "attribute":
        model.graph.node.append(inner)
    elif place == "subgraph":
        model.graph.node.append(helper.make_node("If", ["b"], ["z"], then_branch=graph, else_branch=graph))
    elif place == "function":
        opsets = [helper.make_opsetid("", 18)]
        model.functions.append(helper.make_function("own", "f", [], ["c"], [inner], opsets))
    elif place == "sparse":
        sparse = onnx.SparseTensorProto(values=tensor, dims=[2])
        model.graph.sparse_initializer.append(sparse)
    elif place == "training":
        model.training_info.add().initialization.CopyFrom(graph)
    elif place == "after a run of numbers":
        attribute = helper.make_attribute("a", [1.0, 2.0])
        attribute.ints.extend([1, 300, -1])
        attribute.t.CopyFrom(tensor)
        model.graph.node[0].attribute.append(attribute)
    return model.SerializeToString()


@pytest.mark.parametrize("place", ["attribute", "subgraph", "function", "sparse", "training", "after a run of numbers"])
def test_a_file_is_found_wherever_a_tensor_may_stand(place):
    with pytest.raises(ArtifactError, match="keeps numbers in another file, 'secrets'"):
        read_graph(hidden_in(place), {})


@pytest.mark.parametrize("dims", [[2**40], [2**31, 2**31], [-1], [2**63 - 1, 2**63 - 1]])
def test_a_tensor_that_says_more_than_it_holds_is_refused(dims):
    tensor = TensorProto(name="c", data_type=FLOAT, dims=dims, raw_data=bytes(8))
    data = network([IDENTITY], [("x", FLOAT, ["n", 2])], [("y", FLOAT, ["n", 2])], [tensor])

    with pytest.raises(ArtifactError, match="made to do harm"):
        read_graph(data, {})


def test_a_tensor_of_two_bit_numbers_is_not_refused():
    tensor = TensorProto(name="c", data_type=TensorProto.INT8, dims=[64], raw_data=bytes(16))

    read_graph(network([IDENTITY], [("x", FLOAT, ["n", 2])], [("y", FLOAT, ["n", 2])], [tensor]), {})


@pytest.mark.parametrize("place", ["tensor", "sparse"])
def test_a_tensor_of_thousands_of_dimensions_is_refused(place):
    model = onnx.ModelProto(ir_version=9)
    if place == "tensor":
        model.graph.initializer.append(TensorProto(name="c", data_type=FLOAT, dims=[2**63 - 1] * 1000))
    else:
        values = TensorProto(name="c", data_type=FLOAT, dims=[1], raw_data=bytes(4))
        model.graph.sparse_initializer.append(onnx.SparseTensorProto(values=values, dims=[2**63 - 1] * 1000))

    with pytest.raises(ArtifactError, match="a tensor has 1000 dimensions"):
        read_graph(model.SerializeToString(), {})


def test_a_dense_size_beyond_memory_of_a_sparse_tensor_is_refused():
    values = numpy_helper.from_array(np.ones(1, dtype=np.float32), "c")
    sparse = onnx.SparseTensorProto(values=values, dims=[2**31, 2**31])
    data = network([IDENTITY], [("x", FLOAT, ["n", 2])], [("y", FLOAT, ["n", 2])], sparse_initializer=[sparse])

    with pytest.raises(ArtifactError, match="a sparse tensor says"):
        read_graph(data, {})


def test_every_truncation_is_refused_and_the_longer_ones_are_still_known_as_onnx():
    data = converted(LogisticRegression(max_iter=1000).fit(X, Y), zipmap=False)
    after_graph = onnx.ModelProto.FromString(data)
    after_graph.ClearField("graph")
    n_graph = len(data) - len(after_graph.SerializeToString())

    for length in range(0, n_graph, 9):
        with pytest.raises(ArtifactError):
            load(data[:length])
    assert looks_like_model(data[: n_graph // 2])


@pytest.mark.parametrize("data", [b"", b"PK\x03\x04", b"\x80\x04\x95", b"tree\nversion=v4", b"{", b"\x08", bytes(64)])
def test_other_files_are_not_taken_for_onnx(data):
    assert not FORMAT.matches(artifact(data))


def test_what_the_runtime_refuses_is_refused_with_its_reason():
    node = helper.make_node("NoSuchOperator", ["x"], ["y"])

    with pytest.raises(ArtifactError, match="is refused by ONNX Runtime: .*NoSuchOperator"):
        load(network([node], [("x", FLOAT, ["n", 2])], [("y", FLOAT, ["n", 2])]))


@pytest.mark.parametrize("text", ["{", "[]", '{"fields": [], "outputs": {"predict": 1}}'])
def test_metadata_that_are_wrong_are_refused(text):
    model = onnx.ModelProto.FromString(converted(Ridge().fit(X, Y)))
    model.metadata_props.add(key="fitserve.signature", value=text)

    with pytest.raises(ArtifactError, match="has metadata"):
        load(model.SerializeToString())


def test_a_session_answers_many_threads_at_once():
    from concurrent.futures import ThreadPoolExecutor

    estimator = RandomForestClassifier(5, random_state=0).fit(X, Y)
    model = load(converted(estimator, zipmap=False))
    wanted = estimator.predict(X).tolist()

    with ThreadPoolExecutor(4) as threads:
        found = list(threads.map(lambda row: predicted(model, [row]).predictions[0], X.tolist()))

    assert found == wanted


def test_a_session_uses_no_threads_of_its_own(monkeypatch):
    seen = []
    real = onnxruntime.InferenceSession
    monkeypatch.setattr(
        onnxruntime,
        "InferenceSession",
        lambda data, options, **more: seen.append(options) or real(data, options, **more),
    )

    load(converted(Ridge().fit(X, Y)))

    assert (seen[0].intra_op_num_threads, seen[0].inter_op_num_threads) == (1, 1)

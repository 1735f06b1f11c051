"""Explanation: what it accepts, selects, sums to, and how it leaves the house."""

from __future__ import annotations

import dataclasses

import numpy as np
import pandas as pd
import pytest

from shaplab import Explanation, concat

NASTY = ["<script>alert('x')</script>", "quo\"te's", "n" * 500, "a\nb"]


def make(
    outputs: int | None = None, std: bool = False, d: int = 4, n: int = 5, **options: object
) -> Explanation:
    generator = np.random.default_rng(1)
    shape = (n, d) if outputs is None else (n, d, outputs)
    values = generator.normal(size=shape)
    base = generator.normal(size=n if outputs is None else (n, outputs))
    names = [f"f{j}" for j in range(d)]
    options = {
        "data": generator.normal(size=(n, d)),
        "feature_names": names,
        "method": "test",
    } | options
    return Explanation(values, base, std=np.abs(values) / 10 if std else None, **options)


# Shapes.


def test_prediction_is_base_plus_values() -> None:
    for e, axes in ((make(), 1), (make(3), 1)):
        np.testing.assert_allclose(
            e.prediction, e.base_values + e.values.sum(axis=axes), rtol=1e-15
        )
    image = Explanation(np.ones((2, 3, 4)), [1.0, 2.0])
    np.testing.assert_array_equal(image.prediction, [13, 14])
    assert image.feature_shape == (3, 4)
    pairs = Explanation(np.ones((2, 3, 3, 2)), np.zeros((2, 2)), interaction=True)
    np.testing.assert_array_equal(pairs.prediction, np.full((2, 2), 9.0))
    assert pairs.feature_shape == (3, 3)


@pytest.mark.parametrize(
    ("base", "expected"), [(2.0, (5,)), (np.zeros(5), (5,)), (np.zeros((5, 3)), (5, 3))]
)
def test_base_values_of_every_shape(base: object, expected: tuple[int, ...]) -> None:
    values = np.zeros((5, 4, 3)) if len(expected) == 2 else np.zeros((5, 4))
    assert Explanation(values, base).base_values.shape == expected


def test_one_base_value_an_output_is_repeated() -> None:
    e = Explanation(np.zeros((5, 4, 3)), [1.0, 2.0, 3.0])
    np.testing.assert_array_equal(e.base_values, np.tile([1.0, 2, 3], (5, 1)))
    assert e.has_outputs


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"values": np.zeros(3)}, "values: expected an array of at least 2 axes"),
        ({"base_values": np.zeros(4)}, r"base_values: expected shape \(5,\)"),
        ({"base_values": np.zeros((5, 2))}, r"base_values: expected shape"),
        ({"base_values": np.zeros((1, 1, 1))}, r"base_values: expected shape"),
        ({"std": np.zeros((5, 2))}, r"std: expected shape \(5, 3\), as values have"),
        (
            {"rest": np.zeros(4)},
            r"rest: expected shape \(5,\), as base_values have, got shape \(4,\)",
        ),
        ({"interaction": True}, "values: expected shape .N, d, d."),
        ({"data": np.zeros((4, 3))}, "data: expected 5 rows"),
        (
            {"data": np.zeros((5, 2))},
            r"data: expected 5 rows and the columns of values, got shape \(5, 2\)",
        ),
        ({"data": 3.0}, r"data: expected 5 rows and the columns of values, got shape \(\)"),
        ({"feature_names": ["a", "b"]}, "feature_names: expected 3 names, got 2"),
    ],
)
def test_wrong_shapes_are_refused(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Explanation(**{"values": np.zeros((5, 3)), "base_values": 0.0} | options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"values": "abc"}, "values: expected numbers, got 'abc'"),
        ({"values": [[1, 2], [3]]}, "values: expected numbers"),
        ({"base_values": "x"}, "base_values: expected numbers, got 'x'"),
        ({"base_values": None}, "base_values: expected numbers, got None"),
        ({"std": [["a"] * 3] * 5}, "std: expected numbers"),
        ({"feature_names": 5}, "feature_names: expected 3 names, got 5"),
    ],
)
def test_what_is_no_number_is_refused(options: dict, message: str) -> None:
    with pytest.raises(TypeError, match=message):
        Explanation(**{"values": np.zeros((5, 3)), "base_values": 0.0} | options)


def test_rows_may_be_frames_tensors_or_sparse() -> None:
    sparse, torch = pytest.importorskip("scipy.sparse"), pytest.importorskip("torch")
    X = np.arange(6.0).reshape(2, 3)
    for data in (
        X.tolist(),
        pd.DataFrame(X),
        torch.tensor(X, requires_grad=True),
        sparse.csr_matrix(X),
    ):
        np.testing.assert_array_equal(Explanation(X, 0.0, data=data).data, X)


def test_names_must_be_a_list() -> None:
    with pytest.raises(TypeError, match="feature_names: expected 3 names"):
        Explanation(np.zeros((1, 3)), 0.0, feature_names="abc")
    with pytest.raises(ValueError, match="output_names: expected 2 names"):
        Explanation(np.zeros((1, 3, 2)), np.zeros((1, 2)), output_names=["only"])
    with pytest.raises(TypeError, match="info: expected a mapping"):
        Explanation(np.zeros((1, 3)), 0.0, info=5)  # type: ignore[arg-type]


def test_it_is_frozen_and_leaves_the_users_arrays_alone() -> None:
    values, data = np.ones((2, 2)), np.ones((2, 2))
    e = Explanation(values, 0.0, data=data, info={"evaluations": 3})
    with pytest.raises(dataclasses.FrozenInstanceError):
        e.method = "other"  # type: ignore[misc]
    for array in (e.values, e.base_values, e.data):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 5
    values[0, 0] = data[0, 0] = 7.0
    assert values.flags.writeable
    assert data.flags.writeable
    assert e.info == {"evaluations": 3}


# The gap.


def test_gap_measures_and_never_raises_on_its_size() -> None:
    e = make()
    assert np.abs(e.gap(e.prediction)).max() == 0
    np.testing.assert_allclose(e.gap(e.prediction + 100.0), 100.0)
    np.testing.assert_allclose(e.gap((e.prediction + 1)[:, None]), 1.0)
    assert e.gap(list(e.prediction)).shape == (5,)
    with pytest.raises(ValueError, match=r"outputs: expected shape \(5,\), got shape \(4,\)"):
        e.gap(np.zeros(4))
    with pytest.raises(TypeError, match="outputs: expected numbers"):
        e.gap(["yes"] * 5)


def test_gap_takes_tensors() -> None:
    torch = pytest.importorskip("torch")
    e = make(2)
    assert np.abs(e.gap(torch.tensor(e.prediction, requires_grad=True))).max() == 0


# Selecting.


@pytest.mark.parametrize(
    ("key", "rows"),
    [
        (0, [0]),
        (-1, [4]),
        (np.int64(2), [2]),
        (slice(1, 4, 2), [1, 3]),
        ([3, 0], [3, 0]),
        (np.array([1, 1]), [1, 1]),
        ([True, False, False, True, False], [0, 3]),
        (np.array([False] * 5), []),
        (slice(None), range(5)),
    ],
)
def test_rows_are_selected_and_the_axis_stays(key: object, rows: object) -> None:
    e = make(std=True)
    part = e[key]
    for name in ("values", "base_values", "data", "std", "prediction"):
        np.testing.assert_array_equal(getattr(part, name), getattr(e, name)[list(rows)])
    assert len(part) == len(list(rows))
    assert part.names == e.names


@pytest.mark.parametrize("key", ["f2", ["f2"], 2, [-2], slice(2, 3), [False, False, True, False]])
@pytest.mark.parametrize("outputs", [None, 3])
def test_features_by_name_or_place_keep_the_prediction_true(
    key: object, outputs: int | None
) -> None:
    e = make(outputs, std=True)
    part = e[:, key]
    np.testing.assert_array_equal(part.values, e.values[:, [2]])
    np.testing.assert_array_equal(part.data, e.data[:, [2]])
    np.testing.assert_array_equal(part.std, e.std[:, [2]])
    assert part.names == ("f2",)
    np.testing.assert_allclose(part.prediction, e.prediction, rtol=1e-14)
    np.testing.assert_allclose(part[1:3][:, []].prediction, e.prediction[1:3], rtol=1e-14)


def test_features_in_another_order() -> None:
    e = make()
    part = e[:, ["f3", "f0"]]
    assert part.names == ("f3", "f0")
    np.testing.assert_array_equal(part.values, e.values[:, [3, 0]])


def test_outputs_by_name_or_place() -> None:
    e = make(3, std=True, output_names=["a", "b", "c"])
    for key in ("b", 1, -2):
        one = e[:, :, key]
        assert not one.has_outputs
        assert one.output_names is None
        np.testing.assert_array_equal(one.values, e.values[:, :, 1])
        np.testing.assert_allclose(one.prediction, e.prediction[:, 1])
    two = e[1:, ["f0", "f1"], ["c", "a"]]
    assert two.output_names == ("c", "a")
    np.testing.assert_array_equal(two.values, e.values[1:, :2][:, :, [2, 0]])
    np.testing.assert_allclose(two.prediction, e.prediction[1:, [2, 0]])


@pytest.mark.parametrize(
    ("key", "message"),
    [
        ((0, 0, 0), "index: expected at most 2 parts, got 3"),
        ((slice(None), "nobody"), "features: expected names among f0"),
        ((0, 9), "features: expected integers from -4 to 3 or names"),
        (7, "rows: expected integers from -5 to 4"),
        ("f0", "rows: expected integers"),
        ([True, False], "rows: expected a mask of length 5, got length 2"),
        ((0, 1.5), "features: expected integers"),
    ],
)
def test_bad_selections_are_explained(key: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()[key]


def test_features_of_images_and_interactions_are_not_sliced() -> None:
    for e in (
        Explanation(np.zeros((2, 3, 3)), 0.0),
        Explanation(np.zeros((2, 3, 3)), 0.0, interaction=True),
    ):
        with pytest.raises(ValueError, match="index: expected features of a table"):
            e[:, 0]


# Leaving the house.


@pytest.mark.parametrize("outputs", [None, 2])
def test_frame_holds_each_value_on_its_line(outputs: int | None) -> None:
    e = make(outputs, std=True, output_names=None if outputs is None else ["no", "yes"])
    frame = e.to_frame()
    assert len(frame) == e.values.size
    for row, feature, output in ((0, 0, 0), (3, 2, -1), (4, 1, 0)):
        line = frame[(frame["row"] == row) & (frame["feature"] == f"f{feature}")]
        where = (row, feature) if outputs is None else (row, feature, output)
        if outputs is not None:
            line = line[line["output"] == e.output_names[output]]
        assert line["value"].item() == e.values[where]
        assert line["std"].item() == e.std[where]
        assert line["data"].item() == e.data[row, feature]


def test_frame_of_interactions_images_and_mixed_data() -> None:
    values = np.arange(8.0).reshape(2, 2, 2)
    pairs = Explanation(values, 0.0, feature_names=["a", "b"], interaction=True)
    frame = pairs.to_frame()
    assert list(frame.columns) == ["row", "feature", "with", "value"]
    assert frame.query("row == 1 and feature == 'b' and `with` == 'a'")["value"].item() == 6
    assert len(Explanation(np.zeros((2, 3, 3)), 0.0).to_frame()) == 18
    mixed = pd.DataFrame({"a": [1.0, None], "b": pd.Categorical(["x", None])})
    told = Explanation(np.zeros((2, 2)), 0.0, data=mixed, feature_names=mixed.columns).to_frame()
    assert told["data"].tolist()[:2] == [1.0, "x"]
    assert told["data"].isna().tolist() == [False, False, True, True]


@pytest.mark.peers
def test_shap_draws_our_numbers() -> None:
    shap = pytest.importorskip("shap")
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    e = make(n=30, std=True)
    theirs = e.to_shap()
    np.testing.assert_array_equal(theirs.values, e.values)
    np.testing.assert_array_equal(theirs.base_values, e.base_values)
    np.testing.assert_array_equal(theirs.data, e.data)
    assert list(theirs.feature_names) == list(e.names)
    before = e.values.copy()
    chart = shap.plots.waterfall(theirs[3], show=False)
    said = " ".join(text.get_text() for text in chart.figure.findobj(mpl.text.Text))
    assert f"{abs(e.prediction[3]):.3f}" in said
    for value, name in zip(e.values[3], e.names, strict=True):
        assert f"{abs(value):.2f}".rstrip("0") in said
        assert name in said
    plt.close("all")
    sizes = np.sort(np.abs(e.values).mean(axis=0))
    chart = shap.plots.bar(theirs, show=False)
    np.testing.assert_allclose(
        np.sort([patch.get_width() for patch in chart.patches])[-4:], sizes, rtol=1e-12
    )
    plt.close("all")
    swarm = shap.plots.beeswarm(theirs, show=False)
    points = np.concatenate(
        [c.get_offsets()[:, 0] for c in swarm.collections if len(c.get_offsets()) == 30]
    )
    np.testing.assert_allclose(np.sort(points), np.sort(e.values.ravel()), rtol=1e-12)
    plt.close("all")
    np.testing.assert_array_equal(e.values, before)


@pytest.mark.peers
def test_shap_takes_outputs_interactions_and_images() -> None:
    shap = pytest.importorskip("shap")
    several = make(3, output_names=["a", "b", "c"]).to_shap()
    np.testing.assert_array_equal(several[:, :, 1].values, make(3).values[:, :, 1])
    assert isinstance(several, shap.Explanation)
    pairs = Explanation(np.zeros((2, 3, 3)), 0.0, interaction=True, feature_names=["a", "b", "c"])
    assert pairs.to_shap().shape == (2, 3, 3)
    assert Explanation(np.zeros((2, 3, 3)), 0.0).to_shap().shape == (2, 3, 3)
    part = make()[:, ["f1"]].to_shap()
    # What was sliced away stays in the sum.
    assert part.feature_names == ["f1", "features left out"]
    np.testing.assert_allclose(
        part.base_values + part.values.sum(axis=1), make().prediction, rtol=1e-14
    )
    assert np.isnan(part.data[:, 1]).all()


# Reading.


def test_repr_names_the_method_and_ranks_the_features() -> None:
    text = repr(make(std=True))
    assert text.startswith("<test: attributions of 5 rows, features 4, largest standard error")
    sizes = np.abs(make().values).mean(axis=0)
    assert [line.split()[0] for line in text.splitlines()[1:]] == [
        f"f{j}" for j in np.argsort(-sizes)
    ]
    assert "no sampling error" in repr(make())
    assert "1 row," in repr(make(n=1))
    assert "3 outputs" in repr(make(3))
    for other in (
        Explanation(np.zeros((2, 3, 3)), 0.0, interaction=True),
        Explanation(np.zeros((2, 8, 8)), 0.0),
        Explanation(np.zeros((0, 3)), np.zeros(0)),
        make(std=True)[:0],
    ):
        assert repr(other)
        assert other._repr_html_()


def test_hostile_names_are_escaped_and_cut() -> None:
    e = Explanation(np.ones((1, 4)), 0.0, feature_names=NASTY, method="<b>" + "m" * 500)
    page = e._repr_html_()
    assert "<script" not in page
    assert "<b>" not in page
    assert "&lt;script&gt;" in page
    assert "n" * 100 not in page
    assert "m" * 300 not in page
    assert max(map(len, repr(e).splitlines())) < 250
    # A heading, base value, four features, prediction.
    assert len(repr(e).splitlines()) == 7, "a name with a line break stays on one line"


def test_html_is_the_same_each_time() -> None:
    assert make()._repr_html_() == make()._repr_html_()


# Readings that a guess would get wrong.


def test_as_many_rows_as_outputs_are_told_apart_by_the_data() -> None:
    values, base = np.zeros((3, 4, 3)), [0.1, 0.2, 0.3]
    by_output = Explanation(values, base, data=np.zeros((3, 4)))
    assert by_output.has_outputs
    np.testing.assert_array_equal(by_output.base_values, np.tile(base, (3, 1)))
    by_row = Explanation(values, base, data=np.zeros((3, 4, 3)))
    assert not by_row.has_outputs
    np.testing.assert_array_equal(by_row.base_values, base)
    named = Explanation(values, base, output_names=["a", "b", "c"])
    assert named.base_values.shape == (3, 3)
    with pytest.raises(ValueError, match=r"base_values: expected shape \(3, 3\) for 3 outputs"):
        Explanation(values, base)
    # Where there is one reading only, nothing needs telling.
    assert not Explanation(np.zeros((3, 3)), base).has_outputs
    assert not Explanation(np.zeros((3, 3, 3)), base, interaction=True).has_outputs
    assert Explanation(np.zeros((3, 4, 4, 3)), base, interaction=True).has_outputs


def test_slices_of_images_with_as_many_rows_as_pixels_in_a_line_keep_one_base_value_a_row() -> None:
    rng = np.random.default_rng(0)
    values = rng.normal(size=(9, 5, 4))
    for data in (None, rng.normal(size=(9, 5, 4)), rng.normal(size=(9, 3, 5, 4))):
        e = Explanation(values, np.arange(9.0), data=data)
        part = e[2:6]
        assert not part.has_outputs
        np.testing.assert_array_equal(part.base_values, [2, 3, 4, 5])
        np.testing.assert_allclose(part.prediction, e.prediction[2:6])
    pixels = Explanation(values[:4], [1.0, 2, 3, 4], data=rng.normal(size=(4, 3, 5, 4)))
    assert not pixels.has_outputs
    outputs = Explanation(values[:4], [1.0, 2, 3, 4], data=rng.normal(size=(4, 3, 5)))
    assert outputs.has_outputs
    table = Explanation(rng.normal(size=(9, 4, 3)), np.zeros((9, 3)))[:4, :, 1]
    assert table.shape == (4, 4)


def told() -> Explanation:
    info = {
        "rounds": np.array([4, 5, 6, 7, 8]),
        "gap": np.arange(15.0).reshape(5, 3),
        "samples": np.arange(20).reshape(5, 4),
        "evaluations": 99,
        "per output": np.array([1.0, 2.0, 3.0]),
    }
    return make(3, std=True, info=info, index=list("abcde"), output_names=["u", "v", "w"])


def test_slices_carry_what_belongs_to_their_rows_features_and_outputs() -> None:
    e = told()[[3, 1], ["f2", "f0"], "v"]
    assert e.info["rounds"].tolist() == [7, 5]
    assert e.info["gap"].tolist() == [10.0, 4.0]
    assert e.info["samples"].tolist() == [[14, 12], [6, 4]]
    assert e.info["evaluations"] == 99
    assert e.info["per output"].tolist() == [1.0, 2.0, 3.0]
    assert e.index.tolist() == ["d", "b"]
    np.testing.assert_allclose(e.prediction, told().prediction[[3, 1], 1], rtol=1e-14)


def test_intervals_of_a_slice_have_its_shape_and_its_own_degrees_of_freedom() -> None:
    from scipy.stats import t as student

    from shaplab.foundations.permutation import confidence_interval

    e = told()[[4]]
    low, high = confidence_interval(e)
    assert low.shape == e.values.shape
    np.testing.assert_allclose((high - low) / 2, student.ppf(0.975, 7) * e.std, rtol=1e-12)
    part = told()[:, ["f3"]]
    assert confidence_interval(part)[0].shape == (5, 1, 3)


def test_a_feature_is_selected_once_and_by_a_name_of_its_own() -> None:
    for key in (["f1", "f1"], [0, 0], ["f1", 1], [0, -4]):
        with pytest.raises(ValueError, match="features: expected each feature once, got 'f"):
            make()[:, key]
    twins = Explanation(np.zeros((1, 2)), 0.0, feature_names=["a", "a"])
    with pytest.raises(ValueError, match="features: expected a name that stands for one of them"):
        twins[:, "a"]
    assert twins[:, 1].names == ("a",)


@pytest.mark.parametrize("e", [make(), make(3), make(n=1), Explanation(np.ones((2, 3, 4)), 0.0)])
def test_iterating_ends_and_gives_rows(e: Explanation) -> None:
    rows = list(e)
    assert [len(row) for row in rows] == [1] * len(e)
    np.testing.assert_array_equal(np.concatenate([row.values for row in rows]), e.values)
    np.testing.assert_array_equal(np.asarray(e), e.values)
    assert np.array(e, dtype=np.float32).dtype == np.float32
    assert np.array(e).flags.writeable


def test_one_row_prints_signs_ends_data_and_what_is_not_shown() -> None:
    values = np.array([[-7.487, 0.5, *([0.01] * 10)]])
    names = ["age", "sex", *(f"s{j}" for j in range(10))]
    e = Explanation(values, 100.0, data=np.arange(12.0)[None] + 40, feature_names=names)
    text = repr(e)
    for part in ("base value", "100", "age = 40", "-7.487", "+0.5", "4 more features", "+0.04"):
        assert part in text
        assert part in e._repr_html_()
    assert "93.11" in text.splitlines()[-1]
    assert "mean" not in text
    left = repr(e[:, ["age"]])
    assert "features left out" in left
    assert "+0.6" in left
    two = Explanation(values[..., None] * [1.0, -1.0], [1.0, 2.0], output_names=["no", "yes"])
    assert "-7.487" in repr(two) and "+7.487" in repr(two) and "yes" in repr(two)
    many = Explanation(np.ones((3, 12)), 0.0)
    assert "4 more features" in repr(many)


def test_a_gap_is_not_taken_against_transposed_outputs() -> None:
    e = make(3)
    outputs = e.prediction + 1.0
    np.testing.assert_allclose(e.gap(outputs), 1.0)
    with pytest.raises(ValueError, match=r"outputs: expected shape \(5, 3\), got shape \(3, 5\)"):
        e.gap(outputs.T)
    with pytest.raises(ValueError, match=r"outputs: expected shape \(5,\), got shape \(1, 5\)"):
        make().gap(make().prediction[None])


def test_the_index_names_and_missing_values_of_a_frame_survive() -> None:
    X = pd.DataFrame(
        {"size": pd.array([1.5, None], dtype="Float64"), "count": pd.array([1, 2], dtype="Int64")},
        index=["first", "second"],
    )
    e = Explanation(np.ones((2, 2)), 0.0, data=X)
    assert e.feature_names == ("size", "count")
    assert e.data.dtype == float
    assert np.isnan(e.data[1, 0])
    table = e.to_frame()
    assert table["row"].tolist() == ["first", "first", "second", "second"]
    assert e[1].to_frame()["row"].tolist() == ["second"] * 2
    mixed = X.assign(kind=pd.array(["a", None], dtype="string"))
    assert Explanation(np.ones((2, 3)), 0.0, data=mixed).data[1].tolist()[1] == 2
    levels = X.set_index(pd.MultiIndex.from_tuples([("a", 1), ("b", 2)]))
    assert Explanation(np.ones((2, 2)), 0.0, data=levels).to_frame()["row"][0] == ("a", 1)
    assert make().to_frame()["row"].tolist()[:5] == [0, 0, 0, 0, 1]
    with pytest.raises(ValueError, match="index: expected 5 labels"):
        make(index=["a"])


# Files.


@pytest.mark.parametrize(
    "e",
    [
        make(),
        make(3, std=True, output_names=["u", "v", "w"], index=list("abcde")),
        told()[[1, 2], ["f1"]],
        make(data=None, feature_names=None),
        Explanation(np.ones((4, 5, 4)), [1.0, 2, 3, 4], data=np.zeros((4, 5, 4))),
        Explanation(np.ones((2, 3, 3)), 0.0, interaction=True, feature_names=list("abc")),
        Explanation(
            np.ones((2, 2)),
            0.0,
            data=pd.DataFrame({"a": ["x", None], "b": [1.5, np.nan]}, index=[7, 9]),
            info={"stopped": "precision", "rounds": np.array([3, 4]), "converged": np.True_},
        ),
    ],
)
def test_what_is_saved_is_loaded_whole(e: Explanation, tmp_path: object) -> None:
    path = tmp_path / "kept.npz"  # type: ignore[operator]
    e.save(path)
    found = Explanation.load(path)
    for name in ("values", "base_values", "std", "rest", "data", "index"):
        ours, theirs = getattr(e, name), getattr(found, name)
        assert (ours is None) == (theirs is None)
        if ours is not None:
            assert ours.shape == theirs.shape
            pd.testing.assert_series_equal(pd.Series(ours.ravel()), pd.Series(theirs.ravel()))
    assert (found.names, found.output_names, found.method) == (e.names, e.output_names, e.method)
    assert found.interaction == e.interaction
    assert set(found.info) == set(e.info)
    for name, part in e.info.items():
        np.testing.assert_array_equal(found.info[name], part)
    assert [part.name for part in tmp_path.iterdir()] == ["kept.npz"]  # type: ignore[attr-defined]


def test_files_of_others_are_refused_and_nothing_is_unpickled(tmp_path: object) -> None:
    path = tmp_path / "other.npz"  # type: ignore[operator]
    with pytest.raises(ValueError, match="path: expected an existing file"):
        Explanation.load(path)
    for write in (
        lambda: path.write_bytes(b"text"),
        lambda: np.savez(path, values=np.ones(3)),
        lambda: np.savez(path, header=np.array([{}], dtype=object)),
    ):
        write()
        with pytest.raises(ValueError, match=r"path: expected a file written by Explanation.save"):
            Explanation.load(path)
    with pytest.raises(ValueError, match=r"info\['model'\]: expected numbers, text or None"):
        make(info={"model": object()}).save(path)


def test_sums_over_groups() -> None:
    rng = np.random.default_rng(0)
    values = rng.normal(size=(3, 4, 2))
    e = Explanation(
        values,
        np.zeros((3, 2)),
        data=rng.normal(size=(3, 4)),
        feature_names=["a", "b", "c", "d"],
        std=np.ones((3, 4, 2)),
        info={"samples": np.ones((3, 4)), "evaluations": 7},
    )
    found = e.grouped({"ac": ["a", "c"]})
    assert found.feature_names == ("ac", "b", "d")
    np.testing.assert_allclose(found.values[:, 0], values[:, 0] + values[:, 2])
    np.testing.assert_allclose(found.std[:, 0], 2.0)
    np.testing.assert_allclose(found.prediction, e.prediction)
    assert found.data is None
    assert found.info["evaluations"] == 7
    assert "samples" not in found.info
    np.testing.assert_allclose(e.grouped([[3], [0, 1, 2]]).values[:, 0], values[:, 3])
    with pytest.raises(ValueError, match="groups: expected a partition"):
        e.grouped([[0], [1]])
    matrix = rng.normal(size=(2, 3, 3))
    pairs = Explanation(matrix, np.zeros(2), interaction=True, feature_names=["a", "b", "c"])
    both = pairs.grouped({"ab": ["a", "b"]})
    np.testing.assert_allclose(both.values[:, 0, 0], matrix[:, :2, :2].sum(axis=(1, 2)))
    np.testing.assert_allclose(both.values[:, 0, 1], matrix[:, :2, 2].sum(axis=1))
    picture = Explanation(rng.normal(size=(2, 3, 3)), np.zeros(2))
    with pytest.raises(ValueError, match="regions of an image"):
        picture.grouped([[0, 1, 2]])


# Rows of several explanations together.


@pytest.mark.parametrize("outputs", [None, 3])
@pytest.mark.parametrize("std", [False, True])
def test_concat_undoes_slicing(outputs: int | None, std: bool) -> None:
    generator = np.random.default_rng(0)
    shape = (5, 3) if outputs is None else (5, 3, outputs)
    X = pd.DataFrame(generator.normal(size=(5, 3)), columns=list("abc"), index=list("vwxyz"))
    whole = Explanation(
        generator.normal(size=shape),
        generator.normal(size=(5,) if outputs is None else (5, outputs)),
        data=X,
        std=generator.random(shape) if std else None,
        method="made up",
        info={"rounds": np.arange(5), "seconds": 2.0, "by name": {"a": 1}},
    )
    for part in (whole, whole[:, ["c", "a"]]):
        found = concat([part[:2], part[2:3], part[3:]])
        for name in ("values", "base_values", "data", "std", "rest", "index", "prediction"):
            ours, theirs = getattr(found, name), getattr(part, name)
            assert (ours is None) == (theirs is None), name
            assert ours is None or np.array_equal(ours, theirs), name
        assert found.feature_names == part.feature_names
        assert found.method == "made up"
        assert found.info["rounds"].tolist() == [0, 1, 2, 3, 4]
        assert found.info["seconds"] == 2.0
        assert found.info["by name"] == {"a": 1}


def test_concat_of_square_interactions_and_of_parts_that_lack_something() -> None:
    pairs = Explanation(np.ones((2, 2, 2)), [1.0, 2.0], interaction=True, method="one")
    found = concat([pairs, pairs[:1]])
    assert found.interaction
    assert found.base_values.tolist() == [1.0, 2.0, 1.0]
    bare = Explanation(np.ones((1, 2)), 0.0, method="one", info={"n": 1})
    rich = Explanation(
        np.ones((1, 3)), 0.0, data=np.ones((1, 3)), std=np.ones((1, 3)), method="two", info={"n": 2}
    )[:, :2]
    both = concat([bare, rich])
    assert both.data is None
    assert both.std is None
    assert both.prediction.tolist() == [2.0, 3.0]
    assert both.method == "one, two"
    assert "n" not in both.info


@pytest.mark.parametrize(
    "parts",
    [
        [],
        [np.ones((1, 2))],
        [Explanation(np.ones((1, 2)), 0.0), Explanation(np.ones((1, 3)), 0.0)],
        [Explanation(np.ones((1, 2)), 0.0, feature_names=list(names)) for names in ("ab", "ba")],
        [Explanation(np.ones((1, 2)), base) for base in (0.0, np.zeros((1, 2)))],
    ],
)
def test_concat_refuses_what_does_not_fit(parts: list) -> None:
    with pytest.raises((ValueError, TypeError), match="explanations: expected Explanations of"):
        concat(parts)


def test_outputs_that_are_not_shown_are_named() -> None:
    many = Explanation(np.ones((1, 2, 9)), np.zeros((1, 9)))
    assert "9 outputs (the first 6 shown)" in repr(many)
    assert "9 outputs (the first 6 shown)" in many._repr_html_()
    assert "shown" not in repr(many[:, :, :6])


def test_standard_errors_are_written_as_people_write_them() -> None:
    large = Explanation(np.ones((1, 2)), 0.0, std=np.full((1, 2), 1870.0))
    assert "largest standard error 1870" in repr(large)

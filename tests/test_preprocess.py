"""What a network sees: Eq. 5 against a reference, the 98 % rule at its edge, and nothing fitted on test rows."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from sklearn.preprocessing import MinMaxScaler

from lib import fingerprints as module_of_blocks
from lib import preprocess, splits
from lib.preprocess import MinMaxScaling, ProcessedSet

BOUNDS = (0.1, 0.9)

dbm = st.floats(-104, 0, width=32)
bounds = st.tuples(st.integers(-50, 50), st.integers(1, 100)).map(lambda pair: (pair[0] / 10, sum(pair) / 10))
scans = arrays.arrays(np.float32, st.tuples(st.integers(1, 8), st.integers(1, 5)), elements=dbm)


# === Eq. 5 ===


def test_eq_5_of_a_hand_worked_example():
    """x_min = −105, x_max = −5, a = 0.1, b = 0.9: −55 dBm is half way, 0.5; −80 dBm a quarter, 0.3."""
    scaling = MinMaxScaling.of_rssi(np.float32([[-5, -55], [-80, np.nan]]), -105.0, 0.1, 0.9)
    np.testing.assert_allclose(scaling.transform([[-5, -55], [-80, np.nan]]), [[0.9, 0.5], [0.3, 0.1]], rtol=1e-6)
    np.testing.assert_allclose(scaling.inverse([[0.9, 0.5], [0.3, 0.1]]), [[-5, -55], [-80, -105]])


@given(arrays.arrays(np.float64, (6, 2), elements=st.floats(-1e4, 1e4)), bounds)
def test_eq_5_agrees_with_scikit_learn(position, limits):
    position[0], position[1] = -1e4, 1e4
    expected = MinMaxScaler(limits).fit_transform(position)
    scaling = MinMaxScaling((-1e4, -1e4), (1e4, 1e4), *limits)
    np.testing.assert_allclose(scaling.transform(position), expected, rtol=1e-6, atol=1e-6)


def test_positions_are_scaled_per_axis_to_the_unit_square():
    position = np.random.default_rng(0).normal([100, -4000], [10, 300], (200, 2))
    scaled = MinMaxScaling.of_position(position).transform(position)
    np.testing.assert_allclose(scaled, MinMaxScaler().fit_transform(position), atol=1e-6)
    np.testing.assert_array_equal([scaled.min(axis=0), scaled.max(axis=0)], [[0, 0], [1, 1]])


@given(scans, bounds)
def test_scaling_comes_back(rssi, limits):
    scaling = MinMaxScaling((-105.0,), (0.0,), *limits)
    np.testing.assert_allclose(scaling.inverse(scaling.transform(rssi)), rssi, atol=1e-2)


@given(scans, bounds)
def test_scaled_values_are_within_the_bounds_and_in_order(rssi, limits):
    scaled = MinMaxScaling.of_rssi(rssi, -105.0, *limits).transform(rssi)
    assert scaled.dtype == np.float32
    slack = 1e-5
    assert limits[0] - slack <= scaled.min() and scaled.max() == pytest.approx(limits[1], abs=slack)
    assert (np.diff(scaled.ravel()[np.argsort(rssi, axis=None)]) >= 0).all()


@given(scans, bounds, st.randoms())
def test_what_is_not_heard_is_at_the_lower_bound(rssi, limits, random):
    rssi[random.randrange(rssi.shape[0]), random.randrange(rssi.shape[1])] = np.nan
    scaled = MinMaxScaling((-105.0,), (0.0,), *limits).transform(rssi)
    assert not np.isnan(scaled).any()
    np.testing.assert_allclose(scaled[np.isnan(rssi)], limits[0], rtol=1e-6, atol=1e-7)
    assert (scaled[~np.isnan(rssi)] > np.float32(limits[0])).all()


@pytest.fixture
def small_blocks(monkeypatch):
    monkeypatch.setattr(module_of_blocks, "LEAST_ROWS", 101)
    monkeypatch.setattr(module_of_blocks, "VALUES_AT_ONCE", 1)


def test_scaling_block_by_block_or_in_place_gives_every_bit_of_eq_5_in_float64(fingerprints, small_blocks):
    rssi = fingerprints.rssi[:3000]
    scaling = MinMaxScaling.of_rssi(rssi, -128.0, *BOUNDS)
    expected = 0.1 + (np.nan_to_num(rssi.astype(np.float64), nan=-128.0) + 128.0) * scaling._slope
    np.testing.assert_array_equal(scaling.transform(rssi), expected.astype(np.float32))
    here = rssi.copy()
    assert scaling.transform(here, out=here) is here
    np.testing.assert_array_equal(here, expected.astype(np.float32))


@pytest.mark.parametrize("limits", [(1.0, 1.0), (1.0, 0.0), (np.nan, 1.0), (0.0, np.nan)])
def test_bounds_in_the_wrong_order_are_refused(limits):
    with pytest.raises(ValueError, match=f"`lower` must be less than `upper`. Received: {limits[0]} and {limits[1]}"):
        MinMaxScaling((-105.0,), (0.0,), *limits)


@pytest.mark.parametrize(
    ("minimum", "maximum"), [((0.0,), (0.0,)), ((0.0, 0.0), (1.0, 0.0)), ((0.0,), (np.nan,)), ((1.0,), (0.0,))]
)
def test_values_without_a_range_are_refused(minimum, maximum):
    with pytest.raises(ValueError, match="`minimum` must be less than `maximum`"):
        MinMaxScaling(minimum, maximum)


# === Transmitters ===


@pytest.mark.parametrize("rows", [50, 100, 1000])
def test_exactly_98_percent_missing_is_kept_and_one_more_is_not(rows):
    rssi = np.full((rows, 3), np.nan, dtype=np.float32)
    allowed = rows - rows * 98 // 100
    rssi[:allowed, 0] = -70
    rssi[: allowed - 1, 1] = -70
    rssi[:, 2] = -70
    np.testing.assert_array_equal(preprocess.select_transmitters(rssi), [True, False, True])


def test_share_of_one_keeps_all_and_of_zero_the_always_heard():
    rssi = np.float32([[-70, np.nan, np.nan], [-70, -80, np.nan]])
    np.testing.assert_array_equal(preprocess.select_transmitters(rssi, 1.0), [True, True, True])
    np.testing.assert_array_equal(preprocess.select_transmitters(rssi, 0.0), [True, False, False])


@pytest.mark.parametrize("share", [-0.01, 1.01, np.nan])
def test_share_outside_zero_to_one_is_refused(share):
    with pytest.raises(ValueError, match=f"`missing_share` must be between 0 and 1. Received: {share}"):
        preprocess.select_transmitters(np.zeros((2, 2)), share)


def test_no_transmitter_left_is_an_error():
    with pytest.raises(ValueError, match=r"no transmitter is heard in more than 2\.0% of 100 rows"):
        preprocess.select_transmitters(np.full((100, 4), np.nan))


def test_measured_campus_keeps_249_of_both_files_and_248_of_the_training_file(measured_campus):
    assert preprocess.select_transmitters(measured_campus.rssi).sum() == 249
    assert preprocess.select_transmitters(measured_campus.rssi[measured_campus.part == "train"]).sum() == 248


# === Powed and exponential scaling ===


def test_powed_agrees_with_its_formula():
    rssi = np.float32([[-105, -90, -42.5, -1, np.nan, -120]])
    expected = [0, (15 / 105) ** np.e, (62.5 / 105) ** np.e, (104 / 105) ** np.e, 0, 0]
    np.testing.assert_allclose(preprocess.powed(rssi, -105.0)[0], expected, rtol=1e-6)
    np.testing.assert_allclose(preprocess.powed(rssi, -105.0, exponent=1)[0, 1], 15 / 105, rtol=1e-6)


def test_exponential_agrees_with_its_formula():
    rssi = np.float32([[-105, -90, -42.5, 0, np.nan, -120]])
    expected = [0, (np.exp(15 / 60) - 1) / (np.exp(105 / 60) - 1), (np.exp(62.5 / 60) - 1) / (np.exp(105 / 60) - 1)]
    np.testing.assert_allclose(preprocess.exponential(rssi, -105.0)[0], [*expected, 1, 0, 0], rtol=1e-6)
    expected = (np.exp(15 / 24) - 1) / (np.exp(105 / 24) - 1)
    np.testing.assert_allclose(preprocess.exponential(rssi, -105.0, alpha=24)[0, 1], expected, rtol=1e-6)


def test_exponential_is_the_same_block_by_block(fingerprints, small_blocks):
    rssi = fingerprints.rssi[:3000]
    whole = preprocess.exponential(rssi, -128.0)
    assert whole.dtype == np.float32
    np.testing.assert_array_equal(preprocess.exponential(rssi[7:8], -128.0)[0], whole[7])
    heard = ~np.isnan(rssi)
    np.testing.assert_array_equal(preprocess.exponential(rssi[heard], -128.0), whole[heard])
    assert (whole[~heard] == 0).all()


def test_powed_block_by_block_gives_every_bit_of_its_formula(fingerprints, small_blocks):
    rssi = fingerprints.rssi[:3000]
    whole = (((np.nan_to_num(rssi, nan=-128.0) + np.float32(128)) / np.float32(128)) ** np.float32(np.e)).ravel()
    np.testing.assert_array_equal(preprocess.powed(rssi, -128.0).ravel(), whole)
    heard = ~np.isnan(rssi)
    np.testing.assert_array_equal(preprocess.powed(rssi[heard], -128.0), whole[heard.ravel()])


@pytest.mark.parametrize("scale", [preprocess.powed, preprocess.exponential])
@given(scans)
def test_levels_are_between_zero_and_one_and_in_order(scale, rssi):
    scaled = scale(rssi, -105.0)
    assert scaled.min() >= 0 and scaled.max() <= 1
    assert (np.diff(scaled.ravel()[np.argsort(rssi, axis=None)]) >= 0).all()


# === A processed set ===


def everything(fingerprints, protocol, limits=BOUNDS):
    return preprocess.process(fingerprints, protocol, np.arange(len(fingerprints)), limits)


def with_other_test_rows(fingerprints, protocol):
    """The same set, but for the RSSI of the test rows: strong everywhere, and never a copy of another row."""
    test = splits.split(fingerprints, protocol).test
    rssi = fingerprints.rssi.copy()
    rssi[test] = -1.0 - np.random.default_rng(0).random((len(test), rssi.shape[1]), dtype=np.float32)
    return dataclasses.replace(fingerprints, rssi=rssi)


def test_columns_are_the_kept_transmitters_scaled(campus):
    made = everything(campus, "official")
    learning = np.concatenate([made.split.train, made.split.validation])
    np.testing.assert_array_equal(made.kept, preprocess.select_transmitters(campus.rssi[learning]))
    assert made.x.shape == (len(campus), made.kept.sum()) and made.x.dtype == np.float32
    strongest = np.nanmax(campus.rssi[made.split.train][:, made.kept])
    scaled = BOUNDS[0] + (BOUNDS[1] - BOUNDS[0]) * (campus.rssi[:, made.kept] + 105) / (strongest + 105)
    np.testing.assert_allclose(made.x, np.nan_to_num(scaled, nan=BOUNDS[0]), rtol=1e-5)
    np.testing.assert_array_equal(made.position, campus.position)


def test_parts_are_rows_of_the_split_with_positions_in_the_unit_square(campus):
    made = everything(campus, "pooled")
    for name in preprocess.PARTS:
        x, y = made.part(name)
        np.testing.assert_array_equal(x, made.x[getattr(made.split, name)])
        np.testing.assert_allclose(
            made.position_scaling.inverse(y), made.position[getattr(made.split, name)], atol=1e-3
        )
    x, y = made.part("train")
    assert (y.min(), y.max()) == (0, 1)
    assert x.min() == pytest.approx(BOUNDS[0]) and x.max() == pytest.approx(BOUNDS[1])


@pytest.mark.parametrize(("name", "protocol"), [("campus", "official"), ("city", "random")])
def test_test_rows_choose_no_transmitter_and_no_scale(request, name, protocol):
    fingerprints = request.getfixturevalue(name)
    made, other = (everything(one, protocol) for one in (fingerprints, with_other_test_rows(fingerprints, protocol)))
    np.testing.assert_array_equal(made.split.train, other.split.train)
    np.testing.assert_array_equal(made.kept, other.kept)
    assert made.rssi_scaling == other.rssi_scaling and made.position_scaling == other.position_scaling
    learning = np.concatenate([made.split.train, made.split.validation])
    np.testing.assert_array_equal(made.x[learning], other.x[learning])


def test_pooled_lets_the_98_percent_rule_see_all_rows_as_the_paper_did(campus):
    made = everything(campus, "pooled")
    np.testing.assert_array_equal(made.kept, preprocess.select_transmitters(campus.rssi))


def test_all_gateways_are_kept(city):
    assert everything(city, "random").kept.all()


def test_only_the_chosen_rows_are_used(campus):
    rows = np.random.default_rng(0).permutation(len(campus))[:300]
    made = preprocess.process(campus, "pooled", rows, BOUNDS)
    np.testing.assert_array_equal(made.rows, rows)
    np.testing.assert_array_equal(made.position, campus.position[rows])
    assert max(getattr(made.split, name).max() for name in preprocess.PARTS) < 300


@pytest.mark.parametrize(("name", "protocol"), [("campus", "pooled"), ("campus", "official"), ("city", "spatial")])
def test_processing_block_by_block_changes_nothing_and_leaves_the_fingerprints_alone(request, name, protocol):
    fingerprints = request.getfixturevalue(name)
    before, made = fingerprints.rssi.copy(), everything(fingerprints, protocol)
    moved = everything(fingerprints, protocol, (-1.0, 1.0))
    np.testing.assert_array_equal(fingerprints.rssi, before)
    request.getfixturevalue("small_blocks")
    again = everything(fingerprints, protocol)
    for field in ("kept", "x"):
        np.testing.assert_array_equal(getattr(again, field), getattr(made, field), err_msg=field)
    np.testing.assert_array_equal(everything(fingerprints, protocol, (-1.0, 1.0)).x, moved.x)


def test_processing_what_does_not_fit_in_memory_is_refused_at_once(campus, monkeypatch):
    """The fingerprints are there, in this test without taking any room, but there is none for the scaled ones."""
    rows, transmitters = 1_000_000, 10_000
    large = preprocess.FingerprintSet(
        rssi=np.broadcast_to(np.float32(-70), (rows, transmitters)),
        position=np.broadcast_to(0.0, (rows, 2)),
        frame=campus.frame,
        transmitters=("",) * transmitters,
        name=campus.name,
        release=campus.release,
    )
    monkeypatch.setattr(module_of_blocks, "available_memory", lambda: 10_000_000_000)
    with pytest.raises(MemoryError, match=r"need 40\.0 GB, and 10\.0 GB of memory are available"):
        preprocess.process(large, "pooled", np.arange(rows), BOUNDS)
    column = np.broadcast_to(np.float32(0), (rows, transmitters // 2))
    with pytest.raises(MemoryError, match="2,000,000 rows × 10,000 transmitters"):
        preprocess.side_by_side([column, column], 0.0, shared_columns=False)


@pytest.mark.parametrize("limits", [(1.0, 0.0), (0.5, 0.5)])
def test_processing_with_wrong_bounds_is_refused(city, limits):
    with pytest.raises(ValueError, match="`lower` must be less than `upper`"):
        everything(city, "random", limits)


def test_other_bounds_change_the_scale_only(campus):
    made = everything(campus, "official")
    moved = everything(campus, "official", (-1.0, 1.0))
    np.testing.assert_allclose(moved.x, moved.rssi_scaling.transform(made.rssi_scaling.inverse(made.x)), atol=1e-5)
    assert (moved.rssi_scaling.lower, moved.rssi_scaling.upper) == (-1.0, 1.0)
    np.testing.assert_array_equal(moved.y, made.y)


@pytest.mark.parametrize(("name", "protocol"), [("campus", "official"), ("city", "search")])
def test_saved_set_loads_as_it_was(request, tmp_path, name, protocol):
    made = everything(request.getfixturevalue(name), protocol)
    made.save(tmp_path / "deep" / "set.npz")
    loaded = ProcessedSet.load(tmp_path / "deep" / "set.npz")
    for field in ("environment", "release", "frame", "rssi_scaling", "position_scaling", "protocol"):
        assert getattr(loaded, field) == getattr(made, field), field
    for field in ("rows", "kept", "x", "position", "y"):
        np.testing.assert_array_equal(getattr(loaded, field), getattr(made, field), err_msg=field)
        assert getattr(loaded, field).dtype == getattr(made, field).dtype
    for part in preprocess.PARTS:
        np.testing.assert_array_equal(getattr(loaded.split, part), getattr(made.split, part))
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["set.npz"]


def test_loading_what_was_not_made_yet_says_which_notebook_makes_it(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"set\.npz does not exist. Notebook 02_preprocess writes it"):
        ProcessedSet.load(tmp_path / "set.npz")


# === Both environments at once ===


@pytest.fixture(scope="module")
def indoor(campus):
    return everything(campus, "official")


@pytest.fixture(scope="module")
def outdoor(city):
    return everything(city, "random")


def test_own_columns_put_the_environments_side_by_side():
    joined = preprocess.side_by_side([np.full((2, 3), 0.5), np.full((1, 2), 0.7)], 0.1, shared_columns=False)
    expected = [[0.5, 0.5, 0.5, 0.1, 0.1], [0.5, 0.5, 0.5, 0.1, 0.1], [0.1, 0.1, 0.1, 0.7, 0.7]]
    np.testing.assert_array_equal(joined, np.float32(expected))
    assert joined.dtype == np.float32


def test_shared_columns_put_the_environments_on_top_of_each_other():
    joined = preprocess.side_by_side([np.full((1, 2), 0.5), np.full((2, 3), 0.7)], 0.1, shared_columns=True)
    np.testing.assert_array_equal(joined, np.float32([[0.5, 0.5, 0.1], [0.7, 0.7, 0.7], [0.7, 0.7, 0.7]]))


@pytest.mark.parametrize("shared_columns", [False, True])
def test_unified_test_rows_are_all_there_the_indoor_ones_first(indoor, outdoor, shared_columns):
    x, y = preprocess.unify(indoor, outdoor, shared_columns)["test"]
    (x_in, y_in), (x_out, y_out) = indoor.part("test"), outdoor.part("test")
    n, width = x_in.shape
    first = 0 if shared_columns else width
    assert x.shape == (n + len(x_out), max(width, first + 72)) and x.dtype == np.float32
    np.testing.assert_array_equal(x[:n, :width], x_in)
    np.testing.assert_array_equal(x[n:, first : first + 72], x_out)
    assert (x[:n, width:] == np.float32(BOUNDS[0])).all() and (x[n:, :first] == np.float32(BOUNDS[0])).all()
    np.testing.assert_array_equal(y["environment"], np.r_[np.zeros(n), np.ones(len(x_out))][:, None])
    np.testing.assert_array_equal(y["position"], np.concatenate([y_in, y_out]))


@pytest.mark.parametrize("part", ["train", "validation"])
def test_unified_learning_rows_are_balanced_and_keep_scan_environment_and_position_together(indoor, outdoor, part):
    x, y = preprocess.unify(indoor, outdoor)[part]
    width = indoor.x.shape[1]
    fewer = min(len(data.part(part)[0]) for data in (indoor, outdoor))
    assert len(x) == len(y["environment"]) == len(y["position"]) == 2 * fewer
    for number, data in enumerate((indoor, outdoor)):
        chosen = y["environment"][:, 0] == number
        assert chosen.sum() == fewer
        columns = x[chosen][:, :width] if data is indoor else x[chosen][:, width:]
        known = {scan.tobytes() + place.tobytes() for scan, place in zip(*data.part(part), strict=True)}
        assert {a.tobytes() + b.tobytes() for a, b in zip(columns, y["position"][chosen], strict=True)} <= known
    assert 0.3 < np.mean(np.diff(y["environment"][:, 0]) != 0) < 0.7  # shuffled together


def test_unified_environments_need_the_same_bounds(indoor, city):
    with pytest.raises(ValueError, match=r"same bounds of Eq. 5. Received: \(0\.1, 0\.9\) and \(0\.0, 1\.0\)"):
        preprocess.unify(indoor, everything(city, "random", (0.0, 1.0)))


@given(st.integers(1, 30), st.integers(1, 30), st.integers(0, 5))
def test_balanced_rows_are_as_many_of_both_and_no_row_twice(n_indoor, n_outdoor, seed):
    environment = np.repeat(np.float32([0, 1]), [n_indoor, n_outdoor])[:, None]
    rows = preprocess.balanced(environment, seed)
    fewer = min(n_indoor, n_outdoor)
    assert len(rows) == len(set(rows)) == 2 * fewer
    assert environment[rows].sum() == fewer
    np.testing.assert_array_equal(rows, preprocess.balanced(environment, seed))


def test_balanced_rows_are_shuffled_together_and_another_seed_shuffles_otherwise():
    environment = np.repeat(np.float32([0, 1]), [300, 500])[:, None]
    rows = preprocess.balanced(environment, 0)
    assert 200 < np.count_nonzero(np.diff(environment[rows, 0])) < 400  # about every second neighbour differs
    assert not np.array_equal(rows, preprocess.balanced(environment, 1))

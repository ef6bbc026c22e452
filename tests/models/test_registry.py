"""Every estimator keeps the contract: one check over the whole registry."""

import dataclasses

import numpy as np
import pytest

from lib.data.fingerprints import FingerprintSet, Release, Scans, in_common
from lib.data.frames import Frame
from lib.models import registry
from lib.models.estimator import Located
from lib.models.paper import Encoder
from lib.use.localizer import Localizer

# Settings that make each of them quick; what is not random needs none.
TINY_NETWORK = {"epochs": 1, "batch_size": 32}
QUICK = {
    "knn_sorensen_13": {"k": 5},
    "knn_soft": {"k": 5},
    "extra_trees": {"trees": 3},
    "random_forest": {"trees": 3},
    "gradient_boosting": {"rounds": 2, "place_rounds": 2, "leaves": 4},
    "mlp_plain": TINY_NETWORK | {"hidden": (16,)},
    "mlp_anagnostopoulos": TINY_NETWORK,
    "hadnn": TINY_NETWORK | {"hidden": (16, 16)},
    "ea_cnn": TINY_NETWORK,
    "hierarchical_dnn": TINY_NETWORK,
    "unified": TINY_NETWORK | {"folds": 2, "network": {"hidden": (16,)}},
    "unified_shared": TINY_NETWORK | {"folds": 2, "network": {"hidden": (16,)}},
}
OFTEN = (
    "encoder_scratch",
    "encoder_tl",
    "source_many",
    "umlp",
)  # of the paper's networks; their variants take part in `make test-all`


def _checked(name):
    """A name, marked as slow if it is a variant of a network that is checked anyway."""
    variant = registry.entry(name).of_the_paper and name not in OFTEN
    return pytest.param(name, marks=pytest.mark.slow if variant else ())


NAMES = [_checked(name) for name in registry.REGISTRY]
WITH_FILES = [_checked(name) for name, entry in registry.REGISTRY.items() if entry.factory.has_files]
OF_ONE_ENVIRONMENT = [_checked(name) for name, entry in registry.REGISTRY.items() if not entry.together]


def made(name):
    """The estimator, quick to fit."""
    entry = registry.entry(name)
    settings = QUICK.get(name, TINY_NETWORK if entry.of_the_paper else {})
    if entry.source is not None:
        settings = settings | {"source": source_of_all()}
    return registry.make(name, **settings)


def rows_of(name, count, transmitters, seed, floors=True):
    """Scans on two floors, each hearing the transmitters that are near; one hears nothing."""
    rng = np.random.default_rng(seed)
    position = rng.uniform(0, 50, (count, 2))
    masts = rng.uniform(0, 50, (len(transmitters), 2))
    distance = np.linalg.norm(position[:, None] - masts, axis=2)
    rssi = np.round(-40 - distance + rng.normal(0, 2, distance.shape))
    rssi[distance > 35] = np.nan
    rssi[0] = np.nan
    labels = np.arange(count) % 2
    return FingerprintSet(
        rssi=rssi.astype(np.float32),
        position=position,
        frame=Frame(None),
        transmitters=tuple(transmitters),
        name=name,
        release=Release("made", count, None),
        floor=labels if floors else None,
        building=np.arange(count) // 2 % 2 if floors else None,
    )


OFFICE = rows_of("office", 90, [f"AP {number}" for number in range(8)], seed=0)
TOWN = rows_of("town", 90, [f"BS {number}" for number in range(6)], seed=1, floors=False)
SETS = {"one": [OFFICE], "several": [OFFICE, TOWN]}
_source = []


def source_of_all():
    """An encoder of another environment, fitted once."""
    if not _source:
        _source.append(Encoder(**TINY_NETWORK).fit([TOWN[:60]], [TOWN[60:]], seed=0))
    return _source[0]


def sets_for(name):
    """The environments that an estimator of this name is fitted on: several if it can, two if it must."""
    return SETS["several"] if registry.entry(name).together else SETS["one"]


@pytest.fixture(scope="module")
def fitted():
    """Each estimator, fitted once on training and validation rows."""
    estimators = {}

    def get(name):
        if name not in estimators:
            sets = sets_for(name)
            train, validation = [rows[:60] for rows in sets], [rows[60:75] for rows in sets]
            estimators[name] = made(name).fit(train, validation, seed=0)
        return estimators[name]

    return get


def asked(name):
    """Scans of all its environments that it did not learn from, and one that hears nothing."""
    scans = [rows[75:].scans for rows in sets_for(name)]
    silent = Scans(np.full((1, len(scans[0].transmitters)), np.nan, dtype=np.float32), scans[0].transmitters)
    return in_common([*scans, silent])


def assert_same(first: Located, second: Located):
    assert list(first.arrays()) == list(second.arrays())
    for name, values in first.arrays().items():
        np.testing.assert_array_equal(values, getattr(second, name))


@pytest.mark.parametrize("name", NAMES)
def test_it_locates_every_scan_in_metres_of_an_environment_that_it_learnt(fitted, name):
    estimator, scans = fitted(name), asked(name)
    located = estimator.predict(scans)
    assert located.position.shape == (len(scans), 2) and located.position.dtype == np.float64
    assert np.isfinite(located.position).all()
    sets = sets_for(name)
    assert len(estimator.n_train) == len(sets) and sum(estimator.n_train) > 0
    if located.environment is not None:
        assert set(located.environment) <= set(range(len(sets)))
    if located.spread is not None:
        assert (located.spread >= 0).all()
    for label in ("building", "floor"):
        values = getattr(located, label)
        if values is not None and located.environment is None:
            assert set(values) <= set(getattr(OFFICE, label))


@pytest.mark.parametrize("name", NAMES)
def test_columns_are_matched_by_name_in_any_order_beside_others(fitted, name):
    scans = asked(name)
    expected = fitted(name).predict(scans)
    order = np.random.default_rng(0).permutation(len(scans.transmitters))
    stranger = np.full((len(scans), 1), -50, dtype=np.float32)
    names = tuple(np.array(scans.transmitters, dtype=object)[order])
    mixed = Scans(np.concatenate([stranger, scans.rssi[:, order]], axis=1), ("a stranger", *names))
    assert_same(fitted(name).predict(mixed), expected)


@pytest.mark.parametrize("name", NAMES)
def test_a_transmitter_that_scans_do_not_name_is_not_heard(fitted, name):
    scans = asked(name)
    rssi = scans.rssi.copy()
    rssi[:, 0] = np.nan
    fewer = Scans(rssi[:, 1:], scans.transmitters[1:])
    assert_same(fitted(name).predict(fewer), fitted(name).predict(Scans(rssi, scans.transmitters)))


@pytest.mark.parametrize("name", NAMES)
def test_a_scan_is_located_alike_alone_and_among_others(fitted, name):
    scans = asked(name)
    alone, among = fitted(name).predict(scans[3:4]), fitted(name).predict(scans)[3:4]
    np.testing.assert_allclose(alone.position, among.position, rtol=0, atol=1e-3)


@pytest.mark.parametrize("name", NAMES)
def test_no_scans_are_located_nowhere(fitted, name):
    nothing, some = fitted(name).predict(asked(name)[:0]), fitted(name).predict(asked(name))
    assert {field: len(values) for field, values in nothing.arrays().items()} == dict.fromkeys(some.arrays(), 0)


# That networks of the literature are the same again is asked of one of them; the others take long to train.
TRAINED_TWICE = [
    pytest.param(name, marks=pytest.mark.slow)
    if name in ("mlp_anagnostopoulos", "hadnn", "ea_cnn", "hierarchical_dnn", "unified_shared")
    else name
    for name in NAMES
]


@pytest.mark.parametrize("name", TRAINED_TWICE)
def test_the_same_seed_gives_the_same_answer_whatever_the_order_of_the_validation_rows_columns(fitted, name):
    """Another order of columns, and a stranger among them, change nothing; nor does a fit change its rows."""
    sets = [dataclasses.replace(rows, rssi=rows.rssi.copy()) for rows in sets_for(name)]
    validation = []
    for rows in sets:
        order = np.random.default_rng(1).permutation(len(rows.transmitters))
        names = tuple(np.array(rows.transmitters, dtype=object)[order])
        stranger = np.full((15, 1), -50, dtype=np.float32)
        rssi = np.concatenate([rows.rssi[60:75][:, order], stranger], axis=1)
        validation.append(dataclasses.replace(rows[60:75], rssi=rssi, transmitters=(*names, f"{rows.name} stranger")))
    again = made(name).fit([rows[:60] for rows in sets], validation, seed=0)
    assert_same(again.predict(asked(name)), fitted(name).predict(asked(name)))
    for rows, original in zip(sets, sets_for(name), strict=True):
        np.testing.assert_array_equal(rows.rssi, original.rssi)


@pytest.mark.parametrize("name", NAMES)
def test_rows_that_nothing_can_be_learnt_from_are_refused(name):
    sets = sets_for(name)
    validation = [rows[60:75] for rows in sets]
    deaf = [dataclasses.replace(rows, rssi=np.full_like(rows.rssi, np.nan)) for rows in sets]
    for train in ([rows[:0] for rows in sets], deaf):
        with pytest.raises(ValueError, match="expected training rows that hear a transmitter"):
            made(name).fit(train, validation, seed=0)
    with pytest.raises(ValueError, match="must have a set of each environment"):
        made(name).fit([], [], seed=0)


@pytest.mark.parametrize("name", OF_ONE_ENVIRONMENT)
def test_what_learns_one_environment_refuses_several(name):
    train = [rows[:60] for rows in SETS["several"]]
    with pytest.raises(ValueError, match="learns one environment"):
        made(name).fit(train, [rows[60:75] for rows in SETS["several"]], seed=0)


@pytest.mark.parametrize("name", NAMES)
def test_what_needs_floors_refuses_rows_without(name):
    if not registry.entry(name).factory.needs_floors:
        return
    with pytest.raises(ValueError, match="building and floor"):
        made(name).fit([TOWN[:60]], [TOWN[60:75]], seed=0)


@pytest.mark.parametrize("name", WITH_FILES)
def test_what_is_saved_and_loaded_locates_alike(fitted, tmp_path, name):
    estimator = fitted(name)
    estimator.save(tmp_path)
    loaded = registry.entry(name).factory.load(tmp_path)
    assert_same(loaded.predict(asked(name)), estimator.predict(asked(name)))
    assert loaded.n_train == estimator.n_train


def test_a_localizer_is_an_estimator_like_the_others(tmp_path, without_onnx):
    train, validation = [rows[:60] for rows in SETS["several"]], [rows[60:] for rows in SETS["several"]]
    localizer = Localizer(epochs=1, network={"hidden": (16,)}).fit(train, validation, seed=0)
    located = localizer.predict(asked("unified"))
    localizer.save(tmp_path / "localizer")
    assert_same(Localizer.load(tmp_path / "localizer").predict(asked("unified")), located)
    assert set(located.environment) <= {0, 1} and np.isfinite(located.position).all()


# === The registry itself ===


@pytest.mark.parametrize("name", NAMES)
def test_every_setting_that_was_searched_can_be_made_and_the_first_is_the_default(name):
    searched = registry.entry(name).searched
    if not searched:
        return
    assert searched[0] == {}
    assert len({str(settings) for settings in searched}) == len(searched)
    for settings in searched:
        registry.make(name, **settings)


def test_an_unknown_model_is_refused_with_the_known_ones():
    with pytest.raises(ValueError, match=r"`model` must be one of knn_euclidean, .*Received: oracle"):
        registry.make("oracle")

"""Figures: each is drawn for environments with and without labels, with all that its rows hold."""

import dataclasses

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import same_color
from matplotlib.figure import Figure
from matplotlib.quiver import Quiver

from lib.data.protocols import PROTOCOLS
from lib.report import figures
from lib.report.figures import style

KEYS = [
    ("somewhere", "elsewhere"),
    ("lorawan_antwerp", "random"),
    ("ujiindoorloc", "official"),
    ("ujiindoorloc", "pooled"),
]


@pytest.fixture(autouse=True)
def closed():
    """No figure outlives its test."""
    yield
    plt.close("all")


@pytest.fixture(scope="module")
def sets(campus, city):
    """The two environments with labels, and one without them."""
    return campus, city, dataclasses.replace(city[:300], name="somewhere")


@pytest.fixture(scope="module")
def rows():
    """Tidy results of four models under four protocols, one of them unknown; `far` is far off."""
    rng = np.random.default_rng(0)
    level = {"knn": 9.0, "near": 7.0, "as_near": 7.5, "far": 100.0}
    lines = []
    for (environment, protocol), (model, mean), seed in _product(KEYS, level.items(), range(3)):
        line = {"environment": environment, "protocol": protocol, "release": "made (9 rows)", "model": model}
        lines.append(line | {"seed": seed, "mean_m": mean + rng.random(), "share": 0.5 ** (seed + 1)})
    table = pd.DataFrame(lines)
    return table.assign(gain_percent=table["mean_m"] - 5)


def _product(*groups):
    return pd.MultiIndex.from_product([list(group) for group in groups])


NAMES = {"knn": "kNN", "near": "near", "as_near": "as near", "far": "far away"}


def texts(handles):
    return [handle.get_text() for handle in handles]


# === All of them, for environments with and without labels ===


def explored(fingerprints):
    """The figures of one environment."""
    rows = fingerprints[:40]
    estimates = pd.DataFrame({"located": [True, False], "x": 1.0, "y": 2.0, "radius_50": 5.0, "radius_90": 9.0})
    kept = np.full(len(fingerprints.transmitters), True)
    halves = {"first": fingerprints[::2], "second": fingerprints[1::2]}
    return {
        "rssi_histogram": figures.rssi_histogram(fingerprints),
        "rssi_histogram of one": figures.rssi_histogram(fingerprints, fingerprints.transmitters[0]),
        "missing_rates": figures.missing_rates([fingerprints], 0.98),
        "heard_per_row": figures.heard_per_row([fingerprints]),
        "positions": figures.positions([fingerprints]),
        "coverage_maps": figures.coverage_maps(fingerprints, fingerprints.transmitters[:2]),
        "drift": figures.drift(halves),
        "before_after": figures.before_after(fingerprints, kept, np.nan_to_num(rows.rssi, nan=-128.0)),
        "error_map": figures.error_map(rows, rows.position + 3, fingerprints.position, "Map"),
        "scans_on_plan": figures.scans_on_plan(rows[:2], estimates, fingerprints.position, "Plan"),
    }


@pytest.mark.parametrize("number", [0, 1, 2], ids=["campus", "city", "somewhere"])
def test_every_environment_can_be_explored(sets, number):
    for name, figure in explored(sets[number]).items():
        assert isinstance(figure, Figure), name
        assert_labelled(figure)


def assert_labelled(figure):
    """Every panel says what its axes are; of panels side by side that share an axis, the first says it for all."""
    for axis in figure.axes:
        is_colorbar = axis.get_label() == "<colorbar>"
        x_is_shared = len(axis.get_shared_x_axes().get_siblings(axis)) > 1
        assert axis.get_xlabel() or is_colorbar or x_is_shared, axis.get_title()
        y_is_shared = axis.get_subplotspec() is None or axis.get_subplotspec().colspan.start > 0
        assert axis.get_ylabel() or y_is_shared, axis.get_title()


def test_every_protocol_of_the_results_has_a_labelled_panel(rows):
    paired = rows.pivot_table("mean_m", ["environment", "protocol", "seed"], "model", sort=False).reset_index()
    paired = paired.rename(columns={"near": "encoder_scratch", "as_near": "encoder_tl"})
    drawn = {
        "forest": figures.forest(rows, NAMES, dict.fromkeys(NAMES, "all"), {}, "knn"),
        "error_by_share": figures.error_by_share(rows, NAMES),
        "ablation": figures.ablation(rows, NAMES),
        "gains": figures.gains(rows, NAMES),
        "paired_seeds": figures.paired_seeds(paired),
    }
    for name, figure in drawn.items():
        if name not in ("forest", "ablation"):  # whose lines are named models
            assert_labelled(figure)
        titles = [axis.get_title("left") or axis.get_title() for axis in figure.axes]
        assert len(titles) == len(KEYS), name
        expected = ["UJIIndoorLoc, Wi-Fi", "UJIIndoorLoc, Wi-Fi", "Antwerp, LoRaWAN", "somewhere"]
        assert all(map(str.startswith, titles, expected)), name
        for title, protocol in zip(titles, ["pooled", "official", "random", "elsewhere"], strict=True):
            assert protocol in title, name


def test_curves_and_distributions_have_labelled_axes(rows):
    epochs = pd.DataFrame({"model": "near", "seed": 0, "epoch": [1, 2], "rmse": [0.2, 0.1], "val_rmse": [0.3, 0.2]})
    coverage = pd.concat([rows.assign(level=level, coverage=level - 0.02) for level in (0.5, 0.9)])
    stress = rows.assign(stress=rows["protocol"], unit="dB", size=rows["seed"])
    drawn = [
        figures.learning_curves(epochs, NAMES, "Curves", "validation"),
        figures.error_cdf({"near": np.arange(5.0)}, "error (m)", "Errors"),
        figures.errors_by({"floor": (np.arange(6.0), [0, 0, 0, 1, 1, 1])}, "Errors"),
        figures.reliability(coverage),
        figures.stress_curves(stress, NAMES, "mean_m", "mean error (m)"),
    ]
    for figure in drawn:
        assert_labelled(figure)
    assert [axis.get_xlabel() for axis in drawn[-1].axes] == [f"{protocol} (dB)" for _, protocol in KEYS]
    legend = texts(drawn[3].axes[0].get_legend().get_texts())
    assert legend[1:] == [f"{figures.environment_label(environment)}, {protocol}" for environment, protocol in KEYS]


# === Environments ===


def test_environments_have_colours_of_their_own():
    environments = [*dict.fromkeys(protocol.environment for protocol in PROTOCOLS.values()), "somewhere"]
    colours = {figures.environment_colour(environment) for environment in environments}
    assert len(colours) == len(environments)
    assert figures.environment_colour("somewhere") == figures.environment_colour("anywhere")


def test_an_environment_without_labels_is_drawn_by_its_name(sets):
    _, _, somewhere = sets
    (axis,) = figures.missing_rates([somewhere], 0.98).axes
    assert axis.get_xlabel() == "transmitters, best heard first"
    assert axis.get_ylabel() == "scans that miss it (%)"
    assert axis.get_title().startswith("somewhere: ")
    assert same_color(axis.lines[0].get_color(), figures.environment_colour("somewhere"))


def test_any_number_of_environments_fits_in_one_figure(sets):
    titles = [axis.get_title() for axis in figures.heard_per_row(sets).axes]
    expected = ["UJIIndoorLoc, Wi-Fi", "Antwerp, LoRaWAN", "somewhere"]
    assert all(map(str.startswith, titles, expected)) and len(titles) == 3


def test_every_part_of_a_publisher_has_a_panel_so_that_none_hides_another(sets):
    campus, _, somewhere = sets
    parts = np.resize(["a", "b", "c", "d", "e"], len(campus))
    axes = figures.positions([dataclasses.replace(campus, part=parts), dataclasses.replace(somewhere, part=None)]).axes
    titles = [axis.get_title().splitlines()[0] for axis in axes]
    assert titles == [*(f"UJIIndoorLoc, Wi-Fi: {part}" for part in "abcde"), "somewhere: all"]
    for axis in axes[:5]:
        others, own = axis.collections
        assert len(own.get_offsets()) == 160 and len(others.get_offsets()) == len(campus) - 160


def test_drift_is_between_two_campaigns_and_shows_every_level(sets):
    campus, _, somewhere = sets
    with pytest.raises(ValueError, match=r"`campaigns` must be two\. Received: all"):
        figures.drift({"all": campus})
    levels = figures.drift({"first": somewhere, "second": somewhere}).axes[0]
    assert levels.get_xlim()[0] < somewhere.heard_values.min()


def test_a_transmitter_that_is_never_heard_has_a_figure_that_says_so(sets):
    campus, _, _ = sets
    rssi = campus.rssi.copy()
    rssi[:, 3] = np.nan
    silent = dataclasses.replace(campus, rssi=rssi)
    (axis,) = figures.rssi_histogram(silent, silent.transmitters[3]).axes
    assert axis.get_title().endswith("never heard") and not axis.patches


# === Models ===


def test_forest_has_a_line_for_every_model_run_or_quoted(rows):
    rows = rows[rows["protocol"] == "official"]
    names = {"knn": "kNN", "near": "near", "as_near": "as near", "far": "far away", "unused": "unused"}
    families = dict.fromkeys(names, "networks") | {"knn": "nearest fingerprints"}
    rows = rows.assign(mean_m=rows["mean_m"].where(rows["model"] != "far", 100.0))
    quoted = {("ujiindoorloc", "official"): {"near": 6.65, "CNN [9]": 8.0}}
    figure = figures.forest(rows, names, families, quoted, "knn")
    (axis,) = figure.axes
    assert texts(axis.get_yticklabels()) == ["kNN", "near", "as near", "far away"]
    beside = texts(axis.texts)
    assert {"6.65", "published, not run here:\nCNN [9], 8.00 m"} < set(beside) and "100 ± 0" in beside
    assert axis.get_xlim()[1] < 15, "a model that is far off does not press the others together"
    legend = texts(figure.legends[0].get_texts())
    assert legend[:3] == ["nearest fingerprints", "networks", "published, on other rows"]


def test_forest_has_no_line_for_a_model_that_an_environment_lacks(rows):
    lacks = (rows["environment"] == "lorawan_antwerp") & (rows["model"] == "near")
    figure = figures.forest(rows[~lacks], NAMES, dict.fromkeys(NAMES, "all"), {}, "knn")
    lines = {axis.get_title("left").splitlines()[0]: len(axis.get_yticks()) for axis in figure.axes}
    assert lines["Antwerp, LoRaWAN, random"] == 3 and lines["UJIIndoorLoc, Wi-Fi, official"] == 4


def test_forest_is_in_ground_metres_where_rows_have_them(rows):
    rows = rows[rows["protocol"] == "official"]
    quoted = {("ujiindoorloc", "official"): {"near": 6.65}}
    ground = rows.assign(ground_m=rows["mean_m"] / 2)
    (axis,) = figures.forest(ground, NAMES, dict.fromkeys(NAMES, "all"), quoted, "knn").axes
    assert axis.get_xlabel() == "mean error (ground metres)" and "3.33" in texts(axis.texts)


def test_colours_of_ours_and_of_the_papers_networks_are_apart():
    paper, ours = figures.benchmark.FAMILIES[3:5]
    assert np.linalg.norm(np.subtract(paper, ours)) > 0.5


def test_forest_of_one_model_is_drawn(rows):
    alone = rows[(rows["model"] == "knn") & (rows["protocol"] == "random")]
    (axis,) = figures.forest(alone, NAMES, {"knn": "nearest fingerprints"}, {}, "knn").axes
    assert texts(axis.get_yticklabels()) == ["kNN"]


def test_ratios_have_a_line_for_every_protocol_and_name_its_best_baseline(rows):
    table = rows.groupby(["environment", "protocol", "model"], sort=False)["mean_m"].mean().reset_index(name="ratio")
    table["ratio"] /= 7
    table = table.assign(release="made", low=0.9, high=1.1, best="knn", best_m=7.0)
    figure = figures.ratios(table[table["model"] != "far"], NAMES, ["knn"])
    (axis,) = figure.axes
    assert texts(axis.get_yticklabels()) == [
        "UJIIndoorLoc, Wi-Fi, pooled",
        "UJIIndoorLoc, Wi-Fi, official",
        "Antwerp, LoRaWAN, random",
        "somewhere, elsewhere",
    ]
    assert [text.get_text() for text in axis.texts].count("kNN, 7.00 m") == len(KEYS)
    assert texts(figure.legends[0].get_texts()) == ["kNN", "near", "as near"]
    assert axis.get_xscale() == "log"


def test_months_show_errors_shares_and_the_promised_levels():
    lines = []
    for month in (1, 2, 3):
        for model in ("knn", "near"):
            shares = {"located": 1.0, "coverage_50": 0.4, "coverage_90": 0.8}
            lines.append({"model": model, "month": month, "mean_m": 3.0} | shares)
    heard = pd.Series({1: 1.0, 2: 0.8, 3: 0.6})
    figure = figures.months(pd.DataFrame(lines), heard, {"knn": "kNN", "near": "near"}, "near")
    errors, shares = figure.axes
    assert texts(errors.get_legend().get_texts()) == ["kNN", "near"]
    assert len(shares.get_legend().get_texts()) == 4
    promised = [line.get_ydata()[0] for line in shares.lines if line.get_linestyle() == "--"]
    assert promised == [0.5, 0.9]


def test_gaps_have_a_panel_for_every_model_and_a_line_for_every_month():
    lines = []
    for model in ("knn", "near"):
        for month in (6, 12):
            for scans in (50, 100):
                errors = {"stale_m": 4.0, "updated_m": 4 - scans / 100, "own_m": 3.0, "closed": scans / 100}
                lines.append({"model": model, "month": month, "scans": scans} | errors)
    figure = figures.gap_closed(pd.DataFrame(lines), NAMES)
    assert [axis.get_title() for axis in figure.axes] == ["kNN", "near"]
    assert texts(figure.axes[0].get_legend().get_texts()) == ["month 6", "month 12", "all months"]


def test_an_environment_and_a_protocol_of_one_name_are_named_once():
    assert style.panel_label(("tut1", "tut1")) == "tut1"
    assert style.panel_label(("ujiindoorloc", "official")) == "UJIIndoorLoc, Wi-Fi, official"


def test_many_distributions_are_grey_but_for_the_chosen():
    errors = {name: np.arange(5.0) for name in "abcd"}
    legend = figures.error_cdf(errors, "m", "four", highlighted=["b", "a"]).axes[0].get_legend()
    assert texts(legend.get_texts()) == ["b (mean 2, median 2)", "a (mean 2, median 2)", "2 others"]
    assert [line.get_color() == "black" for line in legend.get_lines()] == [False, True, False]
    assert len(figures.error_cdf(errors, "m", "four").axes[0].get_legend().get_texts()) == 4


def test_an_error_map_shows_two_floors_of_one_building_with_arrows_in_ground_metres(sets):
    campus, _, _ = sets
    figure = figures.error_map(campus, campus.position + np.array([3, 4]), campus.position, "Map")
    titles = [axis.get_title() for axis in figure.axes if axis.get_title()]
    buildings, counts = np.unique(campus.building, return_counts=True)
    within = campus.building == buildings[counts.argmax()]
    assert len(titles) == 2 and f"building {buildings[counts.argmax()]}" in figure.get_suptitle()
    mean = f"mean {5 * campus.frame.ground_scale:.3g} m"
    for axis, title in zip(figure.axes, titles, strict=False):
        floor = int(title.split(":")[0].removeprefix("floor "))
        assert title == f"floor {floor}: {(within & (campus.floor == floor)).sum():,} scans, {mean}"
        (arrows,) = [artist for artist in axis.collections if isinstance(artist, Quiver)]
        assert 0 < arrows.N <= 60


def test_an_error_map_without_floors_shows_the_mean_error_by_area(sets):
    _, city, _ = sets
    figure = figures.error_map(city, city.position + np.array([3, 4]), city.position, "Map")
    cells = figure.axes[0].collections[-1]
    np.testing.assert_allclose(np.ma.compressed(cells.get_array()), 5)
    assert figure.axes[1].get_ylabel().startswith("mean error (m)")


def test_seeds_share_an_axis_and_their_legend_is_off_the_data(rows):
    paired = rows.pivot_table("mean_m", ["environment", "protocol", "seed"], "model", sort=False).reset_index()
    figure = figures.paired_seeds(paired.rename(columns={"near": "encoder_scratch", "far": "encoder_tl"}))
    assert len({axis.get_ylim() for axis in figure.axes}) == 1
    assert texts(figure.legends[0].get_texts()) == ["seed 0", "seed 1", "seed 2"]


def test_curves_of_disturbances_share_a_scale_and_show_the_promised_level(rows):
    stress = rows.assign(stress=rows["protocol"], unit="dB", size=rows["seed"], covered=75.0)
    errors = figures.stress_curves(stress.replace({"stress": {"random": "PGD"}}), NAMES, "mean_m", "mean error (m)")
    assert len({axis.get_ylim() for axis in errors.axes}) == 1 and errors.axes[0].get_ylim()[0] == 0
    assert "changed by an attacker by at most (dB)" in [axis.get_xlabel() for axis in errors.axes]
    covered = figures.stress_curves(stress, NAMES, "covered", "within the radius (%)", promised=90)
    assert covered.axes[0].get_ylim() == (70, 100)
    assert texts(covered.legends[0].get_texts())[-1] == "promised: 90 %"


def test_learning_curves_explain_colours_and_lines_inside_the_axes():
    epochs = pd.DataFrame({"model": "near", "seed": 0, "epoch": [1, 2], "rmse": [0.2, 0.1], "val_rmse": [0.3, 0.2]})
    (axis,) = figures.learning_curves(epochs, {"near": "near"}, "Curves", "validation").axes
    assert texts(axis.get_legend().get_texts()) == ["near", "training", "validation"]


def test_scans_that_are_not_located_have_no_estimate_on_the_plan(sets):
    campus, _, _ = sets
    estimates = pd.DataFrame({"located": [True, False, True], "x": 1.0, "y": 2.0, "radius_50": 5.0, "radius_90": 9.0})
    (axis,) = figures.scans_on_plan(campus[:3], estimates, campus.position, "Plan").axes
    assert sorted(patch.radius for patch in axis.patches) == [5, 5, 9, 9]
    assert axis.get_title() == "Plan; circles: 50 and 90 %"
    assert texts(axis.get_legend().get_texts()) == ["training positions", "true position", "estimate"]


# === Files ===


def test_simulated_figures_are_marked_and_others_are_not(sets, tmp_path):
    for simulated in (True, False):
        figure = figures.finish(figures.heard_per_row(sets[:2]), tmp_path / "deep" / "figure.png", simulated)
        assert ("SIMULATED" in texts(figure.texts)) == simulated
    assert (tmp_path / "deep" / "figure.png").read_bytes()[1:4] == b"PNG"


def test_the_same_figure_is_the_same_file(sets, tmp_path):
    for name in ("first.png", "second.png"):
        figures.finish(figures.rssi_histogram(sets[0]), tmp_path / name, simulated=True)
    assert (tmp_path / "first.png").read_bytes() == (tmp_path / "second.png").read_bytes()

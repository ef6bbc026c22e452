"""The way from a regression like the U-MLP's to the unified network, and networks that are asked about unseen phones.

Notebook 06 trains them. The settings of a step decide its run, so that an unchanged step is recalled from the store.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from lib import metrics
from lib.data import protocols
from lib.data.fingerprints import FingerprintSet, joined
from lib.experiments import runs
from lib.experiments.runs import Experiment
from lib.models import unified

PROTOCOLS = ("official", "random")  # whose validation rows tell what a step is worth
NAMES = {
    "step_umlp": "regression like the U-MLP's",
    "step_distance": "+ distance error",
    "step_powed": "+ powed RSSI",
    "step_trunk": "+ wide trunk, dropout, AdamW",
    "step_augmentation": "+ augmentation",
    "step_places": "+ places, hard targets, mean",
    "step_soft": "+ soft targets",
    "step_sharp": "+ geometric median",
    "step_median": "+ softness of the median",
    "step_votes": "+ votes of stored fingerprints, half the say",
    "step_members": "+ four members, and what held-out rows choose",
    "step_alone": "“+ softness of the median”, each environment alone",
    "step_heard": "“+ softness of the median”, with inputs for “heard”",
    "step_still": "“+ softness of the median”, without augmentation",
    "step_hearing": "“+ softness of the median”, all phones hear as well",
    "step_alike": "“+ softness of the median”, outdoors changed as indoors",
}
PLAIN = {"hidden": (256, 256, 128), "dropout": 0.0, "exponent": 1.0}  # the network of the first step
LOUDER = {"offsets": (-6.0, 0.0, 6.0)}
KINDS = {  # arguments of `places.Neighbours`, and whether there are inputs for “heard”
    "network alone": (None, False),
    "+ votes of stored fingerprints": ({}, False),
    "+ votes on the scan as heard 6 dB louder and weaker, too": (LOUDER, False),
    "the same, with inputs for “heard”": (LOUDER, True),
    "inputs for “heard”, no votes": (None, True),
}
FOLDS, VISITED, NEAR_M = 5, 0.6, 8.0  # of phones; share of the other phones' points that stay; what is asked about


# === Step by step ===


def settings(by_protocol: Mapping[str, Mapping]) -> dict[str, dict]:
    """By step, what differs from the unified network.

    Args:
        by_protocol: the settings of each protocol's environment.
    """
    come = [by_protocol[protocol] for protocol in PROTOCOLS]
    indoors, outdoors = come
    still = _changed(come, augmentation=dict.fromkeys(unified.AUGMENTATION, 0.0))
    regression = _regression(still)
    powed = PLAIN | {"exponent": unified.NETWORK["exponent"]}
    hard = _changed(come, grid={"sigma": 1e-3, "softness": 0.0})
    augmented = {"environments": come}
    to_mean = {"decoder": {"iterations": 0}}
    hearing = [indoors | {"augmentation": {"deafness": 0.0}}, outdoors]
    alike = [indoors, outdoors | {"augmentation": unified.AUGMENTATION}]
    return {
        "step_umlp": regression,
        "step_distance": regression | {"head": "distance"},
        "step_powed": regression | {"head": "distance", "network": powed},
        "step_trunk": {"environments": still, "head": "distance"},
        "step_augmentation": augmented | {"head": "distance"},
        "step_places": to_mean | {"environments": hard},
        "step_soft": augmented | to_mean,
        "step_sharp": {"environments": _changed(come, grid={"softness": 0.0})},
        "step_median": augmented,
        "step_votes": {"environments": _changed(come, neighbours={})},
        "step_members": augmented | {"folds": unified.FOLDS},
        "step_alone": augmented,
        "step_heard": augmented | {"network": {"heard": True}},
        "step_still": {"environments": still},
        "step_hearing": {"environments": hearing},
        "step_alike": {"environments": alike},
    }


def _changed(environments: Sequence[Mapping], **changes) -> list[dict]:
    """The settings of each environment, with some changed."""
    return [dict(own) | changes for own in environments]


def _regression(environments: list[dict]) -> dict:
    """A regression with the U-MLP's widths, loss and learning rate."""
    return {
        "environments": environments,
        "head": "squared",
        "network": PLAIN,
        "learning_rate": 0.01,
        "batch_size": 256,
        "weight_decay": None,
    }


def experiments(
    names: Sequence[str], seeds: Sequence[int], epochs: int, by_protocol: Mapping[str, Mapping]
) -> list[Experiment]:
    """The runs of some steps, on the validation rows of both protocols.

    Args:
        names: of steps, some of `NAMES`.
        seeds: of each.
        epochs: that each trains.
        by_protocol: see `settings`.
    """
    of_step = settings(by_protocol)
    chosen = []
    for name in names:
        groups = [PROTOCOLS]
        if name == "step_alone":
            groups = [(protocol,) for protocol in PROTOCOLS]
        for group in groups:
            changes = {"folds": 1} | of_step[name] | {"epochs": epochs}
            changes["environments"] = [changes["environments"][PROTOCOLS.index(protocol)] for protocol in group]
            for seed in seeds:
                run = runs.experiment("unified", group, seed, label=name, part="validation", settings=changes)
                chosen.append(run)
    return chosen


# === Phones that were never seen ===


def phones(number: int, rows: int | None) -> tuple[FingerprintSet, FingerprintSet]:
    """Rows of the training file to learn from, and rows of other phones to ask about, near what is learnt.

    Args:
        number: of the fold, below `FOLDS`.
        rows: how many rows there are; None for all.
    """
    part = protocols.load("official", rows)
    campus = joined(part.train, part.validation)
    shuffled = np.random.default_rng(0).permutation(np.unique(campus.group))
    held_out = np.isin(campus.group, shuffled[number::FOLDS])
    visited = np.random.default_rng(number).random(campus.place_id.max() + 1) < VISITED
    learning = campus[~held_out & visited[campus.place_id]]
    asked = campus[held_out & campus.heard.any(axis=1)]
    return learning, asked[protocols.distance_to_training(learning, asked) <= NEAR_M]


def of_phones(number: int, kind: str, rows: int | None, seed: int, own: Mapping, models: Path) -> dict:
    """The result row of one kind of network on one fold of phones.

    Args:
        number, rows: see `phones`.
        kind: one of `KINDS`.
        seed: of the training.
        own: the settings of the environment.
        models: the folder for runs.
    """
    learning, asked = phones(number, rows)
    neighbours, says_heard = KINDS[kind]
    folder = models / f"fold-{number}-{list(KINDS).index(kind)}"
    arguments = {
        "folds": 1,
        "network": {"heard": says_heard},
        "environments": [dict(own) | {"neighbours": neighbours}],
    }
    sets = [learning], [learning[:0]], [asked]
    (located,) = runs.fit_and_predict("unified", *sets, folder, seed=seed, **arguments).located
    error = metrics.euclidean_errors(asked.position, located.position)
    return {
        "model": kind,
        "fold": number,
        "n_train": len(learning),
        "n_test": len(error),
        "mean_m": error.mean(),
        "median_m": np.median(error),
        "floor_hit": (located.floor == asked.floor).mean(),
    }

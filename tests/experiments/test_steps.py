"""The steps from the paper's U-MLP to the unified network, and phones that are held out."""

import numpy as np

from lib.data import protocols
from lib.data.fingerprints import joined
from lib.experiments import settings, steps

BY_PROTOCOL = settings.described("unified")["by_protocol"]


def test_every_step_has_settings_and_learns_both_environments_in_one_network():
    assert set(steps.settings(BY_PROTOCOL)) == set(steps.NAMES)
    runs = steps.experiments(list(steps.NAMES), [1, 2], 3, BY_PROTOCOL)
    alone = [run for run in runs if run.label == "step_alone"]
    assert len(runs) == 2 * len(steps.NAMES) + 2
    assert [run.protocols for run in alone] == [("official",)] * 2 + [("random",)] * 2
    for run in runs:
        assert run.part == "validation" and run.settings["epochs"] == 3
        assert len(run.settings["environments"]) == len(run.protocols)


def test_only_the_last_steps_have_several_members_or_votes():
    runs = {run.label: run.settings for run in steps.experiments(list(steps.NAMES), [1], 1, BY_PROTOCOL)}
    assert [name for name, own in runs.items() if own["folds"] > 1] == ["step_members"]
    votes = [name for name, own in runs.items() if "neighbours" in own["environments"][0]]
    assert votes == ["step_votes"]


def test_phones_that_are_asked_about_were_not_learnt_and_are_near(environments):
    everything = protocols.load("official", None)
    campus = joined(everything.train, everything.validation)
    asked_phones = []
    for number in range(steps.FOLDS):
        learning, asked = steps.phones(number, None)
        assert not set(learning.group) & set(asked.group)
        assert asked.heard.any(axis=1).all()
        assert (protocols.distance_to_training(learning, asked) <= steps.NEAR_M).all()
        asked_phones += np.unique(asked.group).tolist()
    assert len(asked_phones) == len(set(asked_phones)) <= len(np.unique(campus.group))

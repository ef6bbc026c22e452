"""Estimators that are one Keras network: raw dBm in, metres out, in memory and in files alike."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar, Self

import numpy as np

from lib import quiet_import
from lib.data.fingerprints import Scans
from lib.models import training
from lib.models.estimator import Estimator, Located, nothing_located

with quiet_import():
    import keras

NETWORK, DESCRIPTION = "network.keras", "estimator.json"


class NetworkEstimator(Estimator):
    """What all estimators share whose `predict` is one network.

    Attributes:
        network: after `fit`, (n, t) dBm with NaN = not heard → a dict of `position` (n, 2) metres and, where it tells
            them, `environment` (n, e) probabilities, `building` and `floor` (n,) labels, and `spread` (n,) metres.
        transmitters: (t,) names of its inputs.
        environments: names of the environments that it learnt.
    """

    has_files: ClassVar[bool] = True
    network: keras.Model
    transmitters: tuple[str, ...]
    environments: tuple[str, ...]

    def predict(self, scans: Scans) -> Located:
        """See `Estimator.predict`."""
        if len(scans) == 0:
            return nothing_located(self)
        outputs = training.predict(self.network, scans.of(self.transmitters))
        return located(outputs)

    def fitted(self) -> dict:
        """What a fitted estimator knows beside its network, for JSON."""
        return {
            "transmitters": list(self.transmitters),
            "environments": list(self.environments),
            "n_train": list(self.n_train),
        }

    def take(self, fitted: Mapping) -> None:
        """Take over what `fitted` gave another."""
        self.transmitters = tuple(fitted["transmitters"])
        self.environments = tuple(fitted["environments"])
        self.n_train = list(fitted["n_train"])

    def save(self, folder: Path) -> None:
        """See `Estimator.save`."""
        self.network.save(folder / NETWORK)
        (folder / DESCRIPTION).write_text(json.dumps(self.fitted(), indent=1) + "\n")

    @classmethod
    def load(cls, folder: Path) -> Self:
        """See `Estimator.load`; its settings are the defaults, as it is not trained again."""
        description = json.loads((folder / DESCRIPTION).read_text())
        estimator = cls()
        estimator.network = keras.saving.load_model(folder / NETWORK, compile=False)
        estimator.take(description)
        return estimator


def located(outputs: Mapping[str, np.ndarray]) -> Located:
    """A network's outputs by name as a Located."""
    fields = {name: outputs[name] for name in ("building", "floor", "spread") if name in outputs}
    if "environment" in outputs:
        fields["environment"] = outputs["environment"].argmax(axis=1)
    return Located(outputs["position"].astype(np.float64), **fields)

"""Every estimator by name: how it is made, what makes it a variant, and what its settings were searched among.

A further model is a class that keeps the contract, and an entry in `REGISTRY`; notebook 07 says which ones it compares.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from lib.models.estimator import Estimator
from lib.models.neighbours import NearestFingerprints, ValidatedNeighbours
from lib.models.paper import UMLP, Encoder
from lib.models.pretraining import EncoderOfMany
from lib.models.published import EACNN, HADNN, AnagnostopoulosMLP, HierarchicalDNN, PlainMLP
from lib.models.trees import Forest, GradientBoosting
from lib.models.unified import Unified


@dataclass(frozen=True)
class Source:
    """The model that a transferred one starts from, and the environments that it learnt.

    Attributes:
        model: its name in `REGISTRY`.
        environments: `partner`, the other one of the pair; `own`, the target's; or `unrelated`, see
            `protocols.unrelated`.
    """

    model: str
    environments: str = "partner"


@dataclass(frozen=True)
class Entry:
    """One model.

    Attributes:
        factory: makes the estimator from its settings.
        settings: what makes it this model and no other; hyper-parameters are in `notebooks/settings.yaml`.
        inherits: the name under which its hyper-parameters are found there, beside its own.
        searched: settings that were compared on validation rows, the default first.
        random: whether the seed matters.
        together: whether it learns several environments at once.
        of_the_paper: whether its inputs are the transmitters that the protocol names, and an epoch passes several times
            over a small share of the rows.
        source: the model that it starts from, if any.
    """

    factory: type[Estimator]
    settings: Mapping = field(default_factory=dict)
    inherits: str | None = None
    searched: Sequence[Mapping] = ()
    random: bool = True
    together: bool = False
    of_the_paper: bool = False
    source: Source | None = None


def _encoder(source: str | None = None, environments: str = "partner", **settings) -> Entry:
    start = None if source is None else Source(source, environments)
    return Entry(Encoder, settings, inherits="encoder", of_the_paper=True, source=start)


def _source_of_many(**settings) -> Entry:
    return Entry(EncoderOfMany, settings, inherits="source_many", together=True, of_the_paper=True)


def _umlp(**settings) -> Entry:
    return Entry(UMLP, settings, inherits="umlp", together=True, of_the_paper=True)


# [14] Torres-Sospedra et al. 2014, [15] Aernouts et al. 2018, [17] Anagnostopoulos & Kalousis 2019: see the classes.
REGISTRY: dict[str, Entry] = {
    # Nearest fingerprints
    "knn_euclidean": Entry(ValidatedNeighbours, {"metrics": ("euclidean",)}, random=False),  # [14], [15]
    "knn_sorensen": Entry(ValidatedNeighbours, {"metrics": ("sorensen",)}, random=False),
    # With nothing to choose, for environments without validation rows
    "knn_euclidean_1": Entry(NearestFingerprints, {"metric": "euclidean", "k": 1}, random=False),
    "knn_sorensen_5": Entry(NearestFingerprints, {"metric": "sorensen", "k": 5}, random=False),
    "knn_soft": Entry(NearestFingerprints, {"metric": "sorensen", "k": 48, "weighting": "soft"}, random=False),
    "knn_sorensen_13": Entry(NearestFingerprints, {"metric": "sorensen", "k": 13}, random=False),
    "knn_weighted": Entry(ValidatedNeighbours, {"weighting": "inverse"}, random=False),
    "knn_anagnostopoulos": Entry(  # [17]
        ValidatedNeighbours,
        {"metrics": ("sorensen",), "scale": "powed_1.1"},
        random=False,
        searched=({}, {"scale": "exponential"}, {"metrics": ("euclidean",), "scale": "exponential"}),
    ),
    # Trees
    "extra_trees": Entry(  # [17]
        Forest,
        {"kind": "extra_trees"},
        searched=({}, {"scale": "dbm"}, {"scale": "exponential"}, {"max_features": 1.0}, {"average": "mean"}),
    ),
    "random_forest": Entry(
        Forest,
        {"kind": "random_forest"},
        searched=({}, {"scale": "exponential"}, {"max_features": 1.0}, {"average": "mean"}),
    ),
    "gradient_boosting": Entry(GradientBoosting, searched=({}, {"leaves": 31}, {"rounds": 300}, {"loss": "l1"})),
    # Published networks
    "mlp_plain": Entry(PlainMLP, searched=({}, {"hidden": (256, 256)}, {"hidden": (256, 256), "decay": False})),
    "mlp_anagnostopoulos": Entry(
        AnagnostopoulosMLP,
        searched=({}, {"representation": "powed"}, {"batch_size": 512, "learning_rate": 5e-4, "decay": False}),
    ),
    "hadnn": Entry(HADNN, searched=({}, {"decay": True}, {"span": 10.0})),
    "ea_cnn": Entry(EACNN, searched=({}, {"noise": 0.0}, {"noise": 0.3})),
    "hierarchical_dnn": Entry(
        HierarchicalDNN,
        searched=({}, {"batch_size": 32, "learning_rate": 1e-3}, {"kappa": 1}, {"sigma": 0.5}),
    ),
    # The paper's localizers, and the controls of notebook 05
    "encoder_scratch": _encoder(),
    "encoder_tl": _encoder("encoder_scratch"),
    "encoder_scratch_constant": _encoder(),  # at a constant learning rate, to see convergence
    "encoder_tl_constant": _encoder("encoder_scratch"),
    "encoder_tl_frozen": _encoder("encoder_scratch", frozen=True),
    "encoder_tl_own": _encoder("encoder_scratch", "own"),
    "encoder_tl_labels": _encoder("source_labels"),
    "encoder_tl_scans": _encoder("source_scans"),
    "encoder_scratch_longer": _encoder("encoder_scratch", updates_only=True),
    "source_labels": _encoder(spoilt="labels"),
    "source_scans": _encoder(spoilt="scans"),
    # Transfer from many environments, and the controls of notebook 12
    "encoder_tl_many": _encoder("source_many", "unrelated"),
    "encoder_tl_many_labels": _encoder("source_many_labels", "unrelated"),
    "encoder_tl_many_scans": _encoder("source_many_scans", "unrelated"),
    "source_many": _source_of_many(),
    "source_many_labels": _source_of_many(spoilt="labels"),
    "source_many_scans": _source_of_many(spoilt="scans"),
    # Several environments at once
    "umlp": _umlp(),
    "umlp_shared": _umlp(shared_columns=True),
    "umlp_in": _umlp(learns=0),
    "umlp_out": _umlp(learns=1),
    "unified": Entry(Unified, together=True),
    "unified_shared": Entry(Unified, {"shared_columns": True}, inherits="unified", together=True),
}


def entry(name: str) -> Entry:
    """The entry of a model.

    Raises:
        ValueError: if there is none.
    """
    if name not in REGISTRY:
        raise ValueError(f"`model` must be one of {', '.join(REGISTRY)}. Received: {name}")
    return REGISTRY[name]


def make(name: str, **settings) -> Estimator:
    """A model that is not fitted, with other settings in the place of its defaults.

    Raises:
        ValueError: if there is no such model, or a setting is wrong.
    """
    model = entry(name)
    return model.factory(**{**model.settings, **settings})

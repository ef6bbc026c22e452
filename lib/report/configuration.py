"""Table I: every hyper-parameter of the paper's networks, and where its value is from."""

from collections.abc import Mapping, Sequence

import pandas as pd

from lib.data.protocols import MISSING_SHARE, PAIRS, Parts
from lib.models import paper

PAPER = "the paper"
COLUMNS = ("part", "hyper-parameter", "value", "from")
ALL, TRAINING = "all parts", "training"
HEADS = "Wi-Fi and LoRa networks"


def encoder_table(
    description: Mapping,
    parts: Mapping[str, Parts],
    constant_rate: float,
    seeds: Sequence[int],
    hard_seeds: Sequence[int],
) -> pd.DataFrame:
    """Table I(a): the localizer of encoder, base model and predictive head.

    Args:
        description: `settings` of the encoder, `by_protocol` and where each value is `from`.
        parts: the protocols `pooled` and `random` among them.
        constant_rate: the learning rate of the runs for Fig. 3.
        seeds, hard_seeds: of the trainings under the paper's protocols and under `official` and `spatial`.

    Returns:
        Texts, columns `COLUMNS`.
    """
    chosen, origin = description["settings"], description["from"]
    batches = [description["by_protocol"][protocol]["batch_size"] for protocol in PAIRS[0]]
    sizes = paper.CONFIGS[chosen["config"]]
    norm = paper.localizer(1, chosen["config"], chosen["dropout"]).get_layer("encoder").get_layer("encoder_norm_1")
    rows = [
        *_input_rows(chosen, origin, parts),
        ("encoder", "hidden layers", sizes["encoder"]["hidden"], origin["config"]),
        ("encoder", "latent dimension", sizes["encoder"]["latent"], origin["config"]),
        ("base model", "hidden layers", sizes["base_model"]["hidden"], origin["config"]),
        ("base model", "intermediate dimension", sizes["base_model"]["intermediate"], origin["config"]),
        (HEADS, "hidden layers", sizes["predictive_head"]["hidden"], origin["config"]),
        (HEADS, "output", "2 coordinates, linear", PAPER),
        ("encoder, base model", "dropout", chosen["dropout"], origin["dropout"]),
        (HEADS, "dropout", "none", "ours: the paper has some"),
        (ALL, "batch normalisation after each layer", "yes", PAPER),
        (ALL, "momentum of its running mean and variance", norm.momentum, "ours: the default 0.99 lags by epochs"),
        (ALL, "activation", "ReLU", PAPER),
        (TRAINING, "optimiser", "Adam", PAPER),
        (TRAINING, "exponential decay rates β1, β2", "0.9, 0.999", "Keras' default; the paper's are not legible"),
        (TRAINING, "learning rate", f"{chosen['learning_rate']}, cosine decay to 0", origin["learning_rate"]),
        (
            *(TRAINING, "learning rate in Fig. 3", f"{constant_rate}, constant"),
            "constant as in the paper, the value is ours",
        ),
        (TRAINING, "batch size Wi-Fi, LoRa", _joined(batches), origin["batch_size"]),
        (TRAINING, "epochs Wi-Fi, LoRa", _joined([chosen["epochs"]] * 2), origin["epochs"]),
        (TRAINING, "loss, metric", "MSE, RMSE", PAPER),
        (TRAINING, "split", "protocols of notebook 02", "ours: the paper states none"),
        (TRAINING, "seeds", _joined(seeds), "ours"),
        (TRAINING, "seeds under `official` and `spatial`", _joined(hard_seeds), "ours"),
    ]
    return pd.DataFrame(rows, columns=COLUMNS).astype(str)


def _input_rows(chosen: Mapping, origin: Mapping, parts: Mapping[str, Parts]) -> list[tuple]:
    """What the encoder takes."""
    pair = [parts[protocol] for protocol in PAIRS[0]]
    kept = _joined([len(part.transmitters) for part in pair])
    x_min = _joined([f"{part.train.not_heard_dbm:.0f}" for part in pair])
    rule = f"{PAPER}: at most {MISSING_SHARE:.0%} missing; all gateways"
    return [
        ("input", "access points, gateways kept", kept, rule),
        ("input", "Eq. 5: a, b", _joined(chosen["bounds"]), origin["bounds"]),
        ("input", "Eq. 5: x_min Wi-Fi, LoRa (dBm)", x_min, f"ours; {PAPER}"),
    ]


def umlp_table(description: Mapping) -> pd.DataFrame:
    """Table I(b): the U-MLP.

    Args:
        description: its `settings`, and where each value is `from`.

    Returns:
        Texts, columns `COLUMNS` but the first.
    """
    chosen, origin = description["settings"], description["from"]
    size = f"{chosen['batch_size']}, {chosen['epochs']}"
    rows = [
        ("hidden layers", paper.CONFIGS[chosen["config"]]["umlp"]["hidden"], origin["config"]),
        ("dropout", chosen["dropout"], origin["dropout"]),
        ("batch normalisation after each layer, ReLU", "yes", PAPER),
        ("outputs", "environment: 1, sigmoid; position: 2, linear", f"{PAPER}; the sigmoid is ours"),
        ("loss", "MSE + binary cross-entropy, equal weights", f"{PAPER} names MSE; the rest is ours"),
        ("optimiser", "Adam, β1, β2 = 0.9, 0.999", f"{PAPER}; the rates are Keras' default"),
        ("learning rate", f"{chosen['learning_rate']}, cosine decay to 0", origin["learning_rate"]),
        ("batch size, epochs", size, origin["epochs"]),
        ("rows", "equally many of each environment", PAPER),
    ]
    return pd.DataFrame(rows, columns=COLUMNS[1:]).astype(str)


def _joined(values: Sequence) -> str:
    return ", ".join(map(str, values))

"""What models, notebooks and the sweep are given: `notebooks/settings.yaml`, by the profile that `PROFILE` names."""

import copy
import os
from collections.abc import Mapping, Sequence
from functools import cache

import yaml

from lib import paths

SETTINGS = paths.ROOT / "notebooks" / "settings.yaml"


@cache
def _file() -> dict:
    return yaml.safe_load(SETTINGS.read_text())


def _merged(base: Mapping, changes: Mapping) -> dict:
    """A nested mapping with the changes in the place of what it has."""
    merged = dict(base)
    for name, value in changes.items():
        if isinstance(value, Mapping) and isinstance(base.get(name), Mapping):
            merged[name] = _merged(base[name], value)
        else:
            merged[name] = value
    return merged


def profile() -> dict:
    """What this run's profile changes. `lab`, for work by hand, changes nothing.

    Raises:
        ValueError: if there is no such profile.
    """
    name, profiles = os.environ.get("PROFILE", "lab"), _file()["profiles"]
    if name not in profiles:
        raise ValueError(f"PROFILE must be one of {', '.join(profiles)}. Received: PROFILE={name}")
    return profiles[name]


def notebook(name: str) -> dict:
    """The parameters that the profile gives a notebook."""
    return profile().get("notebooks", {}).get(name, {})


def sweep() -> dict:
    """The defaults that the profile gives the sweep's command line."""
    return profile().get("sweep", {})


def rows() -> int | None:
    """How many rows of each environment this run takes; None for all."""
    return profile().get("rows")


def described(model: str, inherits: str | None = None) -> dict:
    """`settings`, `by_protocol` and `from` of a model, those of the name that it inherits included."""
    models = _merged(_file()["models"], profile().get("models", {}))
    inherited = models.get(inherits, {})
    return copy.deepcopy(_merged(inherited, models.get(model, {})))


def of(model: str, protocols: Sequence[str], *, inherits: str | None = None, together: bool = False) -> dict:
    """The hyper-parameters of a model under one protocol, or under several that it learns together.

    Args:
        model, inherits, together: see `registry.Entry`.
        protocols: one, or several for a model that learns them together. Its setting `environments` then has what
            there is for each of them.
    """
    description = described(model, inherits)
    chosen = description.get("settings", {})
    by_protocol = description.get("by_protocol", {})
    if not together:
        (protocol,) = protocols
        return {**chosen, **by_protocol.get(protocol, {})}
    if by_protocol:
        chosen["environments"] = [by_protocol.get(protocol, {}) for protocol in protocols]
    return chosen

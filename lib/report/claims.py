"""The claims ledger: each number of the paper beside ours, the rule by which they are compared, and whether it holds.

It has what the paper claims and nothing else: what we ask beyond that has tables of its own.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from lib.data.protocols import Parts
from lib.metrics import confidence_half_width

CLAIM_COLUMNS = (
    *("claim", "paper", "rule", "ours", "ci95", "seeds", "unit", "release", "protocol", "verdict", "note"),
)
RULES = ("equal", "at most", "at least")
HOLDS, FAILS, UNCHECKED = "holds", "does not hold", "cannot be checked on this release"


def claim(
    text: str,
    paper: float,
    ours: float | Sequence[float] | None,
    *,
    rule: str,
    unit: str = "",
    release: str = "",
    protocol: str = "",
    tolerance: float = 0.0,
    checkable: bool = True,
    note: str = "",
) -> dict:
    """One line of the ledger: a number of the paper beside ours, and whether it holds.

    Args:
        text: what the paper says.
        paper: its value.
        ours: our value, or one a seed; None where there is none.
        rule: `equal`, `at most` or `at least`: how our value must compare with the paper's for the claim to hold.
        unit, release, protocol: what the value is, and on what it was measured.
        tolerance: slack for the rule, in the claim's unit.
        checkable: False when the data at hand cannot answer; our value is then shown for orientation only.
        note: a sentence on why, where the numbers need one.

    Raises:
        ValueError: if there is no such rule.
    """
    if rule not in RULES:
        raise ValueError(f"`rule` must be one of {', '.join(RULES)}. Received: {rule}")
    values = np.zeros(0) if ours is None else np.atleast_1d(ours).astype(float)
    mean = float(np.mean(values)) if len(values) else None
    half_width = confidence_half_width(values)
    verdict = UNCHECKED
    if checkable and mean is not None:
        verdict = HOLDS if _keeps(rule, mean, paper, tolerance) else FAILS
        if rule != "equal" and half_width > abs(mean - paper):
            note = _notes(note, "the 95 % interval reaches across the paper's value")
    return {
        "claim": text,
        "paper": paper,
        "rule": rule_text(rule, paper, tolerance, unit),
        "ours": mean,
        "ci95": half_width if len(values) > 1 else None,
        "seeds": len(values),
        "unit": unit,
        "release": release,
        "protocol": protocol,
        "verdict": verdict,
        "note": note,
    }


def rule_text(rule: str, paper: float, tolerance: float = 0.0, unit: str = "") -> str:
    """A rule as the ledger shows it: `exactly`, `within 5 %`, `within 20 m`, `at most`, `at least`.

    Args:
        rule, paper, tolerance, unit: as in `claim`. A tolerance that is a multiple of 5 % of the paper's value is shown
            in percent.
    """
    if tolerance == 0:
        return "exactly" if rule == "equal" else rule
    percent = 100 * tolerance / abs(paper)
    slack = f"{tolerance:g} {'points' if unit == '%' else unit}".rstrip()
    if np.isclose(percent % 5, 0) or np.isclose(percent % 5, 5):
        slack = f"{percent:.0f} %"
    return f"within {slack}" if rule == "equal" else f"{rule}, give or take {slack}"


def _keeps(rule: str, ours: float, paper: float, tolerance: float) -> bool:
    """Whether our value keeps the rule."""
    if rule == "equal":
        return abs(ours - paper) <= tolerance
    if rule == "at most":
        return ours <= paper + tolerance
    return ours >= paper - tolerance


def _notes(first: str, second: str) -> str:
    """Two notes in one, either of which may be empty."""
    return "; ".join(filter(None, [first, second]))


def claim_about(
    parts: Parts,
    text: str,
    paper: float,
    ours: float | Sequence[float] | None,
    *,
    rule: str,
    unit: str = "",
    tolerance: float = 0.0,
    note: str = "",
) -> dict:
    """A claim measured under one protocol; on another release than the paper's it cannot be checked.

    Args:
        parts: the rows on which our value was measured.
        text, paper, ours, rule, unit, tolerance, note: as in `claim`.
    """
    release = parts.test.release
    if not release.of_the_paper and not release.simulated:
        note = _notes(note, "the paper used all messages; the subset's are better heard and easier")
    return claim(
        text,
        paper,
        ours,
        rule=rule,
        unit=unit,
        release=str(release),
        protocol=parts.protocol,
        tolerance=tolerance,
        checkable=release.of_the_paper,
        note=note,
    )


def shown_claims(claims: pd.DataFrame) -> pd.DataFrame:
    """The ledger for reading: counts in full, measured values with four digits and interval, unit in the claim."""
    texts = ["unit", "release", "protocol", "note"]
    claims = claims.copy()
    claims[texts] = claims[texts].astype(object).fillna("")
    lines = []
    for row in claims.itertuples():
        line = {
            "claim": f"{row.claim} ({row.unit})" if row.unit else row.claim,
            "paper": f"{row.paper:,.6g}",
            "rule": row.rule,
            "ours": _shown_value(row.ours, row.ci95),
            "verdict": row.verdict,
            "measured on": ", ".join(filter(None, [row.release, row.protocol])),
            "note": row.note,
        }
        lines.append(line)
    return pd.DataFrame(lines)


def _shown_value(value: float, half_width: float) -> str:
    if pd.isna(value):
        return ""
    digits = ",.0f" if value == round(value) else ".4g"
    shown = f"{value:{digits}}"
    if half_width > 0:
        shown = f"{shown} ± {half_width:.2g}"
    return shown

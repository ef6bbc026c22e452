"""How sure an estimate is: cross-conformal radii (Vovk 2015; Barber et al. 2021, CV+).

Of each row of a survey, while it is held out, the score is error / (spread + scale): the spread is the network's own,
the scale a length of the environment. The radius at a level is the quantile of these scores, with the finite-sample
correction of split conformal prediction (Lei et al. 2018), times (spread + scale). About that share of scans like the
held-out ones lies within. Two things are assumed: scans resemble held-out rows, so that of scans from a device, a month
or a place that these do not resemble, fewer may; and a localizer that knows all rows errs no more than one that lacks a
fold, so that the radii are a little too wide rather than too narrow. Where whole devices were held out, it is their
number that counts, not that of their rows: few of them tell little of how devices differ.
"""

import bisect
from dataclasses import dataclass

import numpy as np

MOST_SCORES = 1000  # that are kept


@dataclass(frozen=True)
class Calibration:
    """From spread to radius in one environment.

    Attributes:
        scale: metres, added to the spread.
        rows: how many scores there were.
        rank, score: ascending ranks (1 is the lowest) and scores, at most `MOST_SCORES`. Infinite scores,
            those of rows that were located in another environment, are left out.
    """

    scale: float
    rows: int
    rank: list[int]
    score: list[float]

    @classmethod
    def of(cls, error: np.ndarray, spread: np.ndarray, scale: float) -> "Calibration":
        """Of (n,) errors and (n,) spreads in metres."""
        score = np.sort(error / (spread + scale))
        rows = len(score)
        evenly = np.linspace(1, rows, min(rows, MOST_SCORES))
        rank = np.unique(np.ceil(evenly).astype(int))
        kept = score[rank - 1]
        finite = np.isfinite(kept)
        return cls(scale, rows, rank[finite].tolist(), kept[finite].tolist())

    def radius(self, spread: np.ndarray, level: float) -> np.ndarray:
        """(n,) metres within which the position lies with probability `level`; infinite where too few scores tell."""
        rank = np.ceil((self.rows + 1) * level - 1e-9)
        position = bisect.bisect_left(self.rank, rank)
        if position == len(self.rank):
            return np.full(len(spread), np.inf)
        return self.score[position] * (spread + self.scale)

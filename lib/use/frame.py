"""The columns of `runtime.table` as a DataFrame, with NA for what is missing."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd


def as_frame(columns: Mapping[str, np.ndarray | np.ma.MaskedArray], names: Sequence) -> pd.DataFrame:
    """A row a scan.

    Args:
        columns: see `runtime.table`.
        names: of the scans, the index.
    """
    nullable = {name: _nullable(values) for name, values in columns.items()}
    return pd.DataFrame(nullable, index=pd.Index(names))


def _nullable(values: np.ndarray | np.ma.MaskedArray):
    """A column with NA for what is masked."""
    if not isinstance(values, np.ma.MaskedArray):
        return values
    if values.dtype.kind == "U":
        return pd.array(values.tolist(), dtype="string")
    return pd.arrays.IntegerArray(values.data, np.ma.getmaskarray(values))

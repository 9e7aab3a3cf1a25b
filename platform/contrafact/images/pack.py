"""The images of a study as one array and one table: what ingest leaves and the other stages take up."""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import pandas as pd
from numpy.typing import NDArray

if TYPE_CHECKING:
    from contrafact.images.decode import Pixels

COVARIATE, FACTOR = "covariate_", "factor_"


class Getter(Protocol):
    """What is asked of a place of files: content by hash."""

    def get(self, sha256: str) -> bytes: ...


@dataclass(frozen=True)
class Dataset:
    """One row an image, in the manifest's order.

    ``images`` (n, size, size, 3) uint8; ``key``, ``unit_id`` and ``split`` (n,) text; ``outcome`` (n,) float64;
    ``covariates`` the declared ones, NaN where unknown; ``factors`` the true values of a rendered world in SD
    (no columns for photographs); ``extra`` (m, size, size, 3) unlabelled images, for the generator alone.
    """

    images: Pixels
    key: NDArray[np.object_]
    unit_id: NDArray[np.object_]
    split: NDArray[np.object_]
    outcome: NDArray[np.float64]
    covariates: pd.DataFrame
    factors: pd.DataFrame
    extra: Pixels


def array_bytes(images: Pixels) -> bytes:
    """An array in NumPy's own file format."""
    buffer = io.BytesIO()
    np.save(buffer, images, allow_pickle=False)
    return buffer.getvalue()


def table_bytes(rows: pd.DataFrame, covariates: pd.DataFrame, factors: pd.DataFrame) -> bytes:
    """``rows`` (key, unit_id, split, outcome) with the prefixed covariates and factors, as Parquet."""
    table = pd.concat([rows, covariates.add_prefix(COVARIATE), factors.add_prefix(FACTOR)], axis=1)
    buffer = io.BytesIO()
    table.to_parquet(buffer, index=False)
    return buffer.getvalue()


def load(files: Getter, facts: Mapping[str, Any], *, lockbox: bool = False) -> Dataset:
    """The images that the facts of the ingest stage name.

    Those of the lockbox are left out; only who has opened it in the store asks for them.
    """
    images = _array(files, facts["array"])
    table = pd.read_parquet(io.BytesIO(files.get(facts["table"])))
    if not lockbox:
        outside = (table["split"] != "lockbox").to_numpy()
        images, table = images[outside], table[outside].reset_index(drop=True)
    extra = facts.get("extra_array")
    return Dataset(
        images=images,
        key=table["key"].to_numpy(object),
        unit_id=table["unit_id"].to_numpy(object),
        split=table["split"].to_numpy(object),
        outcome=table["outcome"].to_numpy(float),
        covariates=_prefixed(table, COVARIATE),
        factors=_prefixed(table, FACTOR),
        extra=_array(files, extra) if extra else images[:0],
    )


def _array(files: Getter, sha256: str) -> Pixels:
    return np.load(io.BytesIO(files.get(sha256)), allow_pickle=False)


def _prefixed(table: pd.DataFrame, prefix: str) -> pd.DataFrame:
    found = table[[name for name in table.columns if name.startswith(prefix)]]
    return found.rename(columns=lambda name: name.removeprefix(prefix))

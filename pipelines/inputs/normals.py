"""Climatological normals: what models of anomalies need not learn.

A model that is trained on values has to find the course of the day, of the week or of the year in
them, and a few weeks of frames are too few for that. One that is trained on anomalies is given what
departs from the climatology of its train period, forecasts what will, and the climatology is put
back on its forecasts: without skill of its own it is as good as the climatology.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from pipelines.inputs.kept_climatology import kept_climatology

if TYPE_CHECKING:
    from pipelines.inputs.normalisation import Normalisation
    from pipelines.stores.store import Store

MOST_BYTES = 256 * 2**20
"""of the table: every checkpoint holds it"""


def with_normals(constants: Normalisation, store: Store, variables: Sequence[str]) -> Normalisation:
    """A normalisation to anomalies, by the climatology of a store's train period.

    Parameters
    ----------
    constants:
        Of these variables.

    Raises
    ------
    UsageError, StoreError
        As :func:`pipelines.inputs.climatology.climatology`; or the climatology has more than
        ``MOST_BYTES``.

    Examples
    --------
    >>> constants = Normalisation.from_store(store, ("t2m",), "standardise")  # doctest: +SKIP
    >>> normalisation = with_normals(constants, store, ("t2m",))  # doctest: +SKIP
    """
    usual = kept_climatology(store, variables, MOST_BYTES)
    # A pixel that the train period never saw has no normal: its anomaly is its value.
    table = np.nan_to_num(constants.apply(usual.table), copy=False)
    return replace(constants, normals=replace(usual, table=table))

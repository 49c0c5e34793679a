"""Which seeds there are, of the noise of members and of the days that are drawn anew."""

from __future__ import annotations

from pipelines.errors import UsageError

SEEDS = 2**31
"""seeds are below it: whatever is added to one, PyTorch and NumPy take the sum"""


def check_seed(seed: int) -> None:
    """UsageError for a seed that the generators of random numbers do not take."""
    if not 0 <= seed < SEEDS:
        raise UsageError(f"no seed {seed}", remedy=f"give a --seed of 0 to {SEEDS - 1}")

"""Options of `jobs/predict.py`. Nothing heavy is imported here, so that `--help` is quick."""

from __future__ import annotations

from dataclasses import dataclass, field

from jobs.command_line import SWITCH
from pipelines.errors import UsageError


@dataclass(frozen=True)
class PredictionOptions:
    """What is forecast, from which frames, and where the forecasts go."""

    checkpoint: str
    """URI of a run (its best checkpoint), of a checkpoint, or of an exported folder."""
    store: str | None = None
    """URI of the Zarr store that it was trained on, or of one converted with its splits."""
    source: str | None = None
    """URI of a folder, a glob or a file of the archive that the model's store was made from: the
    newest frames there are forecast from, without a store."""
    forecasts: str | None = None
    """URI of the store of forecasts to write; may be left out with --netcdf."""
    first: str | None = None
    """first init time, such as 2018-03-01 or 2018-03-01T06:00."""
    last: str | None = None
    """last init time, inclusive; 2018-03 is the whole month."""
    latest: bool = field(default=False, metadata=SWITCH)
    """forecast from the newest frames that have no gap before them"""
    every: int = 1
    """frames of the store from one init time to the next."""
    horizon: int | None = None
    """frames to forecast; by default as many as the model was trained for."""
    members: int | None = None
    """forecasts of each init time, of a model with noise."""
    seed: int = 0
    """of the members' noise, from 0 to 2147483647."""
    quantiles: str = ""
    """over the members, such as 0.1,0.5,0.9; the mean is written with them."""
    exceed: str = ""
    """thresholds, such as 30,40: the fraction of the members at or above each."""
    batch_size: int = 16
    """init times in one forward pass."""
    netcdf: str | None = None
    """local file to write one forecast to (--latest, or one init time)."""

    def __post_init__(self) -> None:
        if bool(self.store) == bool(self.source):
            raise UsageError(
                "no frames to forecast from", remedy="give --store or --source, not both"
            )
        if self.newest == self.has_period or bool(self.first) != bool(self.last):
            raise UsageError("no init times", remedy="give --first and --last, or --latest")
        if self.source and not self.newest:
            raise UsageError(
                "a source is forecast from its newest frames only",
                where=self.source,
                remedy="leave --first and --last out, or convert it and give the --store",
            )
        if not (self.forecasts or self.netcdf):
            raise UsageError("nowhere to write", remedy="give --forecasts, --netcdf, or both")
        if self.batch_size < 1 or (self.horizon is not None and self.horizon < 1):
            raise UsageError("batch_size and horizon must be at least 1")

    @property
    def has_period(self) -> bool:
        """Whether a first or a last init time is given."""
        return bool(self.first or self.last)

    @property
    def newest(self) -> bool:
        """Whether the newest frames are forecast from; of a source they always are."""
        return self.latest or bool(self.source and not self.has_period)

    @property
    def period(self) -> tuple[str, str] | None:
        """First and last init time, both inclusive; None for the newest frames."""
        return (self.first, self.last) if self.first and self.last else None

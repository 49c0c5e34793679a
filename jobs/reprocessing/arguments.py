"""Options of the verbs of `reprocess`. Nothing heavy is imported, so that `--help` is quick.

Not even for types: jsonargparse executes what is imported under `TYPE_CHECKING`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

from jobs.command_line import SEVERAL, SWITCH, as_typed, program
from pipelines.archives import ARCHIVES, archive_options
from pipelines.errors import UsageError

EXIT_CODES = """\
exit codes: 0 done (also with nothing to do), 1 anything else (the store is held by another
process), 2 wrong usage, 3 source data missing or unreadable, 4 store incomplete or not matching"""

Options = TypeVar("Options", bound="VerbOptions")


@dataclass(frozen=True, kw_only=True)
class VerbOptions:
    """Options of a verb."""

    def places(self) -> Sequence[str | None]:
        """Return the URIs that the verb reads or writes; None for those that are not given."""
        return ()


@dataclass(frozen=True, kw_only=True)
class WindowOptions(VerbOptions):
    """Windows that are counted."""

    input_frames: int | None = None
    """count windows of this many input frames"""
    horizon: int | None = None
    """and this many predicted frames"""
    stride: int = 1
    """steps from one frame of a window to the next"""
    counting: Literal["every", "openstl"] = "every"
    """every window that fits, or the windows that the papers count"""

    def __post_init__(self) -> None:
        sizes = {"input_frames": self.input_frames, "horizon": self.horizon, "stride": self.stride}
        _check_at_least_1(sizes)
        if (self.input_frames is None) != (self.horizon is None):
            raise UsageError("a window needs both --input_frames and --horizon")


@dataclass(frozen=True, kw_only=True)
class ConversionArguments(VerbOptions):
    """The conversion."""

    archive: str = field(metadata={"choices": tuple(ARCHIVES)})
    """kind of archive"""
    source: str
    """folder, glob or one file; local, s3, gs"""
    store: str
    """URI of the Zarr store"""
    variables: tuple[str, ...] = field(default=(), metadata=SEVERAL | {"metavar": "NAME"})
    """variables to keep; by default all"""
    splits: str | None = None
    """YAML file of the splits, such as  train: ["2010", "2015"]"""
    chunk_frames: int | None = None
    """frames per chunk; by default up to 64"""
    shard_frames: int | None = None
    """frames per shard; by default up to 4096"""
    regrid: str | None = None
    """coarser grid by area average: degrees (5.625) or rows x columns (32x64)"""
    static_fields: tuple[str, ...] = field(
        default=(), metadata=SEVERAL | {"metavar": "NAME[=VALUE]"}
    )
    """fields without time to keep, such as lsm; their missing pixels become VALUE"""
    static_source: str | None = None
    """URI of NetCDF or GRIB files with the static fields; by default the source"""
    archive_options: Mapping[str, Any] = field(default_factory=dict)
    """options of the archive that are given, by name"""

    def __post_init__(self) -> None:
        _check_at_least_1({"chunk_frames": self.chunk_frames, "shard_frames": self.shard_frames})

    def places(self) -> Sequence[str | None]:
        """Return the URIs that the verb reads or writes; None for those that are not given."""
        return self.source, self.store


@dataclass(frozen=True, kw_only=True)
class PlanOptions(WindowOptions, ConversionArguments):
    """What would be converted, and the windows to count in it."""

    def __post_init__(self) -> None:
        ConversionArguments.__post_init__(self)
        WindowOptions.__post_init__(self)


@dataclass(frozen=True, kw_only=True)
class ConvertOptions(ConversionArguments):
    """What is converted, and how."""

    repair: bool = field(default=False, metadata=SWITCH)
    """also convert damaged shards again (see verify)"""
    source_cache_gb: float | None = None
    """GB of remote files that a node keeps while it converts; by default 16, at most half the
    disk"""
    storage_wait: float | None = None
    """seconds that an object storage may be unreachable after work has begun; by default 90"""
    workers: int | None = None
    """shards converted at the same time; by default one per CPU"""
    shared_paths: bool = False
    """local paths are the same on every node of the cluster"""

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_at_least_1({"workers": self.workers})
        if (self.source_cache_gb or 0.0) < 0:
            raise UsageError(f"--source_cache_gb must be at least 0, not {self.source_cache_gb}")


@dataclass(frozen=True, kw_only=True)
class InspectOptions(WindowOptions):
    """The store to describe."""

    store: str
    """URI of the Zarr store"""
    manifest: str = ""
    """.csv or .json file to write, with one entry per window"""
    plot: str = ""
    """folder to write maps, a timeline of missing data and histograms to, as PNG"""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.manifest and self.input_frames is None:
            raise UsageError("--manifest lists windows: give --input_frames and --horizon")

    def places(self) -> Sequence[str | None]:
        """Return the URIs that the verb reads or writes; None for those that are not given."""
        return self.store, self.manifest or None, self.plot or None


@dataclass(frozen=True, kw_only=True)
class VerifyOptions(VerbOptions):
    """The store to compare with its ledger."""

    store: str
    """URI of the Zarr store"""
    source: str = ""
    """URI of the archive, to compare its files as well"""

    def places(self) -> Sequence[str | None]:
        """Return the URIs that the verb reads or writes; None for those that are not given."""
        return self.store, self.source or None


@dataclass(frozen=True, kw_only=True)
class PublishOptions(VerbOptions):
    """The store to commit, and its history."""

    store: str
    """URI of the Zarr store"""
    icechunk: str
    """URI of the Icechunk repository; local, s3, gs"""

    def places(self) -> Sequence[str | None]:
        """Return the URIs that the verb reads or writes; None for those that are not given."""
        return self.store, self.icechunk


@dataclass(frozen=True, kw_only=True)
class RunsOptions(VerbOptions):
    """The history to list."""

    icechunk: str
    """URI of the Icechunk repository; local, s3, gs"""

    def places(self) -> Sequence[str | None]:
        """Return the URIs that the verb reads or writes; None for those that are not given."""
        return (self.icechunk,)


def parse(
    kind: type[Options], verb: str, purpose: str, arguments: Sequence[str]
) -> tuple[Options, bool]:
    """Return the options of a verb, and whether it is to print JSON.

    Parameters
    ----------
    kind:
        The options of the verb.
    verb, purpose:
        Its name, and what it does, for `--help`.
    arguments:
        The command line after the verb.

    Raises
    ------
    SystemExit
        With code 2 if an option is unknown, missing or invalid.
    UsageError
        Two options contradict each other, or a place is empty or unknown.
    """
    from jobs.option_parser import build, job_parser

    converts = issubclass(kind, ConversionArguments)
    own = _archive_flags() if converts else {}
    parser = job_parser(f"{program()} {verb}", as_typed(purpose), epilog=EXIT_CODES)
    parser.add_argument("--json", action="store_true", help="end with one line of JSON")
    parser.add_options(kind, skip={"archive_options"} if converts else set())
    group = parser.add_argument_group("options of one archive (default)")
    for name, (value_type, text) in own.items():
        group.add_argument(f"--{name}", type=value_type, help=text)
    values = parser.parse_args(arguments)
    if converts:
        values["archive_options"] = {name: values[name] for name in own if values[name] is not None}
    from pipelines.storage.places import check_uri

    options = build(kind, values)
    for place in options.places():
        if place is not None:
            check_uri(place)
    return options, values["json"]


def _archive_flags() -> dict[str, tuple[type, str]]:
    """Return the options that archives declare: name -> type, and help for each archive."""
    found: dict[str, tuple[type, str]] = {}
    for archive, options in archive_options().items():
        for option in options:
            line = f"{archive}: {option.metadata['help']} ({option.default})"
            value_type, text = found.get(option.name, (type(option.default), ""))
            found[option.name] = value_type, f"{text}; {line}" if text else line
    return found


def _check_at_least_1(values: Mapping[str, int | None]) -> None:
    for name, value in values.items():
        if value is not None and value < 1:
            raise UsageError(f"--{name} must be at least 1, not {value}")

"""Options of ``reprocess``. Imports nothing heavy: ``--help`` and typing errors are quick."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, NoReturn

from pipelines.archives import ARCHIVES, archive_options
from pipelines.errors import nearest

if TYPE_CHECKING:
    from pipelines.conversion.options import ConversionRequest
    from pipelines.stream.windows import WindowSpec

_REQUIRED = ("archive", "source", "store", "icechunk")
_POSITIVE = ("workers", "chunk_frames", "shard_frames")
_WINDOW = ("input_frames", "horizon")
_EXIT_CODES = """\
exit codes: 0 done (also with nothing to do), 1 anything else (the store is held by another
process), 2 wrong usage, 3 source data missing or unreadable, 4 store incomplete or not matching"""


class _Parser(argparse.ArgumentParser):
    """Refuses abbreviations and names the nearest option or value for a misspelt one."""

    def __init__(self, **options):
        options.setdefault("formatter_class", argparse.RawDescriptionHelpFormatter)
        super().__init__(allow_abbrev=False, epilog=_EXIT_CODES, **options)

    def options(self) -> list[str]:
        return [name for name in self._option_string_actions if name.startswith("--")]

    def error(self, message: str) -> NoReturn:
        choice = re.search(r"invalid choice: '([^']*)' \(choose from (.*)\)", message)
        if choice:
            known = re.findall(r"[\w-]+", choice[2])
            message = f"{message.split(': invalid', 1)[0]}: unknown '{choice[1]}', "
            message += nearest(choice[1], known)
        self.print_usage(sys.stderr)
        self.exit(2, f"error: {message}\n")


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The options as given; ends the process with code 2 where they are wrong."""
    parser = _Parser(prog="reprocess.py", description="Raw archive to sharded Zarr store.")
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB", parser_class=_Parser)
    plan = verbs.add_parser("plan", help="say what convert would do; writes nothing")
    _add_conversion(plan)
    convert = verbs.add_parser("convert", help="create, resume, append and fill gaps")
    _add_conversion(convert)
    _add_running(convert)
    inspect = verbs.add_parser("inspect", help="say what a store holds")
    verify = verbs.add_parser("verify", help="compare a store with its ledger and its sources")
    publish = verbs.add_parser(
        "publish", help="commit a store as it is to an Icechunk repository: one commit a run"
    )
    runs = verbs.add_parser("runs", help="list the commits of an Icechunk repository")
    for verb in (inspect, verify, publish):
        verb.add_argument("--store", metavar="URI")
    for verb in (publish, runs):
        verb.add_argument("--icechunk", metavar="URI", help="the repository; local, s3, gs")
    for verb in (plan, inspect):
        _add_windows(verb)
    inspect.add_argument(
        "--manifest", metavar="FILE", default="", help="list every window in a .csv or .json"
    )
    inspect.add_argument(
        "--plot",
        metavar="FOLDER",
        default="",
        help="write maps, a timeline of missing data and histograms as PNG",
    )
    verify.add_argument(
        "--source", metavar="URI", default="", help="also compare the archive's files"
    )
    for verb in verbs.choices.values():
        verb.add_argument("--json", action="store_true", help="end with one line of JSON")
    known, unknown = parser.parse_known_args(arguments)
    verb = verbs.choices[known.verb]
    if unknown:
        verb.error(_about(unknown[0], verb))
    # Asked for here and not by argparse, which would complain of them before a misspelt one.
    missing = [f"--{name}" for name in _REQUIRED if getattr(known, name, "") is None]
    if missing:
        verb.error(f"give {', '.join(missing)}")
    for name in (*_POSITIVE, *_WINDOW, "stride"):
        value = getattr(known, name, None)
        if value is not None and value < 1:
            verb.error(f"--{name} must be at least 1, not {value}")
    windows = [getattr(known, name, None) is not None for name in _WINDOW]
    if any(windows) != all(windows):
        verb.error(f"a window needs both --{' and --'.join(_WINDOW)}")
    if getattr(known, "manifest", "") and not all(windows):
        verb.error(f"--manifest lists windows: give --{' and --'.join(_WINDOW)}")
    if (getattr(known, "source_cache_gb", None) or 0.0) < 0:
        verb.error(f"--source_cache_gb must be at least 0, not {known.source_cache_gb}")
    return known


def _about(unknown: str, verb: _Parser) -> str:
    if not unknown.startswith("-"):
        return (
            f"unexpected '{unknown}': put a glob into quotes, as in --source 'folder/*.nc', so "
            "that the shell leaves it whole"
        )
    return f"unknown option '{unknown}': {nearest(unknown.split('=')[0], verb.options())}"


def _add_conversion(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("--archive", choices=tuple(ARCHIVES), help="kind of archive")
    verb.add_argument("--source", metavar="URI", help="folder, glob or one file; local, s3, gs")
    verb.add_argument("--store", metavar="URI", help="the Zarr store")
    verb.add_argument("--variables", nargs="+", metavar="NAME", help="default: all")
    verb.add_argument("--splits", metavar="FILE", help='YAML such as  train: ["2010", "2015"]')
    verb.add_argument("--chunk_frames", type=int, metavar="N", help="default: up to 64")
    verb.add_argument("--shard_frames", type=int, metavar="N", help="default: up to 4096")
    verb.add_argument(
        "--regrid",
        metavar="GRID",
        help="coarser grid by area average: degrees (5.625) or rows x columns (32x64)",
    )
    verb.add_argument(
        "--static_fields",
        nargs="+",
        metavar="NAME[=VALUE]",
        help="fields without time to keep, such as lsm; =VALUE: what their missing pixels become",
    )
    verb.add_argument(
        "--static_source",
        metavar="URI",
        help="NetCDF or GRIB files that hold them; default: they are among the source's own",
    )
    own = verb.add_argument_group("options of one archive (default)")
    for name, (kind, text) in _archive_options().items():
        own.add_argument(f"--{name}", type=kind, metavar=kind.__name__.upper(), help=text)


def _archive_options() -> dict[str, tuple[type, str]]:
    """The options that archives declare: name -> type, and a line of help for each archive."""
    found: dict[str, tuple[type, str]] = {}
    for archive, options in archive_options().items():
        for option in options:
            line = f"{archive}: {option.metadata['help']} ({option.default})"
            kind, text = found.get(option.name, (type(option.default), ""))
            found[option.name] = kind, f"{text}; {line}" if text else line
    return found


def _add_windows(verb: argparse.ArgumentParser) -> None:
    verb.add_argument(
        "--input_frames", type=int, metavar="N", help="count windows of N input frames"
    )
    verb.add_argument("--horizon", type=int, metavar="N", help="and N predicted ones")
    verb.add_argument(
        "--stride", type=int, metavar="N", default=1, help="N steps apart; default: 1"
    )
    verb.add_argument(
        "--counting",
        choices=("every", "openstl"),
        default="every",
        help="every window that fits, or as the papers count",
    )


def window(arguments: argparse.Namespace) -> WindowSpec | None:
    """The window that ``plan`` or ``inspect`` was asked for, if any."""
    from pipelines.stream.windows import WindowSpec

    if arguments.input_frames is None:
        return None
    return WindowSpec(arguments.input_frames, arguments.horizon, arguments.stride)


def _add_running(verb: argparse.ArgumentParser) -> None:
    verb.add_argument(
        "--repair", action="store_true", help="also convert damaged shards anew (see verify)"
    )
    verb.add_argument(
        "--source_cache_gb",
        type=float,
        metavar="GB",
        help="remote files that a node keeps while it converts; default: 16, at most half the disk",
    )
    verb.add_argument(
        "--storage_wait",
        type=float,
        metavar="SECONDS",
        help="how long an object storage may be away, once work has begun; default: 90",
    )
    verb.add_argument("--workers", type=int, metavar="N", help="shards at once; default: one a CPU")
    verb.add_argument(
        "--shared_paths",
        choices=("true", "false"),
        default="false",
        help="local paths are the same on every node of the cluster",
    )


def request(arguments: argparse.Namespace) -> ConversionRequest:
    """The conversion that ``plan`` or ``convert`` was asked for; UsageError where it is none."""
    from pipelines.conversion.options import ConversionOptions, ConversionRequest
    from pipelines.conversion.regrid import CoarseGrid
    from pipelines.conversion.static_plan import parse_static
    from pipelines.storage.retry import STORAGE_WAIT_SECONDS
    from pipelines.timeline.splits import read_splits_file

    options = ConversionOptions(
        variables=tuple(arguments.variables) if arguments.variables else None,
        chunk_frames=arguments.chunk_frames,
        shard_frames=arguments.shard_frames,
        splits=read_splits_file(arguments.splits) if arguments.splits else None,
        archive_options={
            name: getattr(arguments, name)
            for name in _archive_options()
            if getattr(arguments, name) is not None
        },
        regrid=str(CoarseGrid.parse(arguments.regrid)) if arguments.regrid else None,
        static_fields=tuple(map(parse_static, arguments.static_fields or ())),
    )
    kept = getattr(arguments, "source_cache_gb", None)
    wait = getattr(arguments, "storage_wait", None)
    return ConversionRequest(
        archive=arguments.archive,
        source=arguments.source,
        store=arguments.store,
        options=options,
        static_source=arguments.static_source,
        repair=getattr(arguments, "repair", False),
        workers=getattr(arguments, "workers", None),
        shared_paths=getattr(arguments, "shared_paths", "false") == "true",
        source_cache_bytes=None if kept is None else round(kept * 1e9),
        storage_wait=STORAGE_WAIT_SECONDS if wait is None else wait,
    )

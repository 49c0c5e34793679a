"""An archive in time: one long series of frames in many files.

One is a module that defines ``ARCHIVE``, an :class:`Archive`: which files belong to it, how they
are described and decoded, and which splits its papers use.
``pipelines/archives/series/weatherbench.py`` is the example.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from pipelines.archives.contents import ArchiveIndex, FileContents, Opener, SourceFile
from pipelines.archives.interface import ArchiveOptions, resolve
from pipelines.archives.series.merging import assemble
from pipelines.archives.sources.finding import find_files
from pipelines.archives.sources.reading import reading
from pipelines.progress import Progress, ignore
from pipelines.timeline.splits import Splits


@dataclass(frozen=True)
class SeriesArchive:
    """How one kind of archive is read.

    ``describe(path, file, options)`` reads headers. ``decoder(path, file)`` is a context that keeps
    the file open and gives ``decode(variable, positions)``, which returns float32 ``(n, *extra, y,
    x)``, missing pixels NaN. ``path`` is local: remote files are fetched first. Both raise
    SourceError naming the file. ``protocol_splits(times)`` gives the splits of the papers, or None
    where the times do not allow them.
    """

    name: str
    title: str
    suffixes: tuple[str, ...]
    """endings of the files that belong to it, lower case"""
    describe: Callable[[str, SourceFile, Any], FileContents]
    decoder: Opener
    protocol_splits: Callable[[np.ndarray], Splits | None]
    separate_periods: bool = False
    """each file is a period of its own; otherwise all files are one period"""
    options: type[ArchiveOptions] = ArchiveOptions
    """what ``describe`` is given"""

    def find(self, source: str) -> tuple[SourceFile, ...]:
        """The archive's files."""
        return find_files(source, self.suffixes, self.name)

    def index(
        self,
        source: str,
        *,
        variables: Sequence[str] | None,
        options: Mapping[str, Any],
        progress: Progress,
        static: Sequence[str] = (),
    ) -> ArchiveIndex:
        """See :meth:`pipelines.archives.interface.AnyArchive.index` and :func:`index_archive`."""
        resolved = resolve(self.name, self.options, options)
        return index_archive(
            self,
            source,
            variables=variables,
            options=resolved,
            progress=progress,
            static=static,
        )

    def opener(self, options: Mapping[str, Any]) -> Opener:
        """The decoder, which depends on no option."""
        return self.decoder


def index_archive(
    archive: SeriesArchive,
    source: str,
    *,
    variables: Sequence[str] | None = None,
    options: ArchiveOptions | None = None,
    progress: Progress = ignore,
    static: Sequence[str] = (),
) -> ArchiveIndex:
    """What the archive at ``source`` holds: reads every file's header, and the frames of overlaps.

    Parameters
    ----------
    variables:
        The variables to keep, in this order; all of them if None.
    options:
        The archive's own; its defaults if None.
    static:
        Variables that are to be static fields, and are no frames where the files have them.

    Raises
    ------
    SourceError
        A file is missing, unreadable or truncated; grids or units differ; a time axis is
        irregular; two files differ about one time.
    UsageError
        A variable that the archive does not have.
    """
    resolved = options or archive.options()
    files = find_files(source, archive.suffixes, archive.name)
    contents = []
    for done, file in enumerate(files):
        progress(done, len(files))
        with reading(file) as path:
            contents.append(archive.describe(path, file, resolved))
    progress(len(files), len(files))
    index = assemble(
        contents,
        archive=archive.name,
        title=archive.title,
        decoder=archive.decoder,
        separate_periods=archive.separate_periods,
        variables=variables,
        static=static,
    )
    return replace(index, options=asdict(resolved))

"""Archives that are one long series of frames in many files.

Such an archive is a module that defines `ARCHIVE`, a `SeriesArchive`: which files belong to it, how
they are described and decoded, and which splits its papers use. `weatherbench.py` is an example.
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
    """How one series archive is read.

    Paths are local: remote files are fetched first. `describe` and `decoder` raise SourceErrors
    that name the file.
    """

    name: str
    """name of the archive on the command line"""
    title: str
    """title of a store whose files have none"""
    suffixes: tuple[str, ...]
    """endings of the archive's files, lower case"""
    describe: Callable[[str, SourceFile, Any], FileContents]
    """`describe(path, file, options)` reads the headers of a file"""
    decoder: Opener
    """`decoder(path, file)` is a context that keeps the file open. It provides `decode(variable,
    positions)`, which returns float32 (n, *extra, y, x) with NaN for missing pixels"""
    protocol_splits: Callable[[np.ndarray], Splits | None]
    """times -> the splits of the papers, or None if the times do not cover them"""
    separate_periods: bool = False
    """whether each file is a period of its own; otherwise all files form one period"""
    options: type[ArchiveOptions] = ArchiveOptions
    """class of the options that `describe` gets"""

    def find(self, source: str) -> tuple[SourceFile, ...]:
        """Return the archive's files at `source`."""
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
        """Return what the files hold, given the archive's own options by name."""
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
        """Return the decoder, which does not depend on options."""
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
    """Return what the archive at `source` holds.

    The header of every file is read. Frames are read only where files overlap in time.

    Parameters
    ----------
    archive:
        How the files are read.
    source:
        URI of a file, a folder or a glob.
    variables:
        The variables to keep, in this order; all of them if None.
    options:
        The archive's own options; its defaults if None.
    progress:
        Called with the number of files read and the number of files.
    static:
        Variables to take as static fields. They are left out of the frames.

    Raises
    ------
    SourceError
        A file is missing, unreadable or truncated; grids or units differ; a time axis is
        irregular; or two files contradict each other at the same time.
    UsageError
        A variable is not in the archive.
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

"""What conversion may ask of an archive, of whichever kind it is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from pipelines.archives.contents import ArchiveIndex, Opener, SourceFile, Splits
from pipelines.archives.options import ArchiveOptions
from pipelines.progress import Progress


class AnyArchive(Protocol):
    """What conversion asks of any kind of archive: in time, of clips, of radar composites."""

    @property
    def name(self) -> str:
        """As the command line calls it."""
        ...

    @property
    def suffixes(self) -> tuple[str, ...]:
        """Endings of the files that belong to it, lower case."""
        ...

    @property
    def options(self) -> type[ArchiveOptions]:
        """Its own options."""
        ...

    def find(self, source: str) -> tuple[SourceFile, ...]:
        """Its files at ``source``."""
        ...

    def index(
        self,
        source: str,
        *,
        variables: Sequence[str] | None,
        options: Mapping[str, Any],
        progress: Progress,
    ) -> ArchiveIndex:
        """What the files hold, with its options as resolved.

        Parameters
        ----------
        variables:
            Those to keep, in this order; all of them if None.
        options:
            Its own, as far as they were given.
        """
        ...

    def opener(self, options: Mapping[str, Any]) -> Opener:
        """How a file is decoded, given the options of its index."""
        ...

    def protocol_splits(self, times: np.ndarray, /) -> Splits | None:
        """The splits of the papers by time; None where there are none, or clips have theirs."""
        ...

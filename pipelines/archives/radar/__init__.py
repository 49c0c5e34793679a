"""Radar composites: a folder of one file a frame (or MeteoNet's many), in any known format.

Which formats there are, and how one is added: :mod:`pipelines.archives.radar.formats.known`.
"""

from pipelines.archives.radar.archive import ARCHIVE, RadarArchive

__all__ = ["ARCHIVE", "RadarArchive"]

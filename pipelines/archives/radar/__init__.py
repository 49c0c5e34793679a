"""Radar composites: a folder with one file per frame, or with MeteoNet's files of many frames.

`pipelines.archives.radar.formats.radar_format` says how a format is added.
"""

from pipelines.archives.radar.archive import ARCHIVE, RadarArchive

__all__ = ["ARCHIVE", "RadarArchive"]

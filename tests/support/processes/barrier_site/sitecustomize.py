"""Stop processes at barriers.

Python imports this module automatically in processes for which tests/support/processes/barrier.py
has set the environment variables below. Each process then waits before it publishes an object whose
path matches the pattern of the test.
"""

from __future__ import annotations

import os
import re
import time
from pathlib import Path
from typing import Any


def _stopping(folder: Path, publish: Any) -> Any:
    rule = folder / "rule"

    def replace(source: Any, target: Any, **options: Any) -> None:
        try:
            pattern = rule.read_text()
        except FileNotFoundError:
            pattern = ""
        if pattern and re.search(pattern, str(target)):
            (folder / "reached" / str(os.getpid())).touch()
            while rule.exists():
                time.sleep(0.02)
        publish(source, target, **options)

    return replace


if _folder := os.environ.get("GMG_TEST_BARRIER"):
    # Every object of a local store or run is written to a temporary file, which this call renames.
    os.replace = _stopping(Path(_folder), os.replace)

"""Python imports this by itself where a test has barriers: see tests/support/processes/barrier.py,
which sets both variables. Every process then stops before it publishes an object that the test's
rule names.
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
    # Every object of a local store or run is written beside its place and then put there by this.
    os.replace = _stopping(Path(_folder), os.replace)

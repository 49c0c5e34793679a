"""Fill templates: styles, macros and values become one self-contained HTML page."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

_TIME = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d UTC")


def fill_page(template: str, shown: Mapping[str, Any]) -> str:
    """Return the page that a template of this folder makes from values.

    Raises
    ------
    jinja2.UndefinedError
        If the template names a value that `shown` does not have.
    """
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["unbroken"] = unbroken
    return environment.get_template(template).render(**shown)


def unbroken(text: str) -> str:
    """Return a text as HTML in which a browser does not break times at their hyphens."""
    from markupsafe import Markup, escape

    return Markup(_TIME.sub(r'<span class="time">\g<0></span>', str(escape(text))))

"""From a template to a page: styles, macros and values become one HTML text that loads nothing."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

_TIME = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d UTC")


def fill_page(template: str, shown: Mapping[str, Any]) -> str:
    """The page of a template beside this module; a value that it names and lacks is an error."""
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
    """HTML of a text whose times a browser does not break at their hyphens."""
    from markupsafe import Markup, escape

    return Markup(_TIME.sub(r'<span class="time">\g<0></span>', str(escape(text))))

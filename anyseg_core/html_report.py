"""HTML reports: one file each, with one look, made by jinja2 from the template of whoever reports."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jinja2


def render_report(template: Path, **values: Any) -> str:
    """The page that a template makes of the values.

    The template may extend `html_report.html.j2`, the base beside this file, and use its macros.
    Raises jinja2.UndefinedError for a value that the template uses and nobody gave.
    """
    loader = jinja2.FileSystemLoader([template.parent, Path(__file__).parent])
    environment = jinja2.Environment(
        loader=loader, autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    return environment.get_template(template.name).render(**values)

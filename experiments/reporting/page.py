"""The page of a report: one HTML file that holds all that it shows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape

from experiments.records import write_whole
from experiments.reporting.figures.style import as_data_uri
from experiments.reporting.sections import Section, Table


def write_page(
    path: Path,
    *,
    title: str,
    facts: Sequence[tuple[str, str]],
    sections: Sequence[Section],
    left_out: Table | None,
    terms: Mapping[str, str],
) -> None:
    """Write the page whole; figures are embedded as SVG, for wide and for narrow screens."""
    environment = Environment(
        loader=PackageLoader("experiments", "reporting"),
        autoescape=select_autoescape(default=True, default_for_string=True),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["data_uri"] = as_data_uri
    content: dict[str, Any] = {
        "title": title,
        "facts": facts,
        "sections": sections,
        "left_out": left_out,
        "terms": terms,
    }
    write_whole(path, environment.get_template("page.html.j2").render(content).encode())

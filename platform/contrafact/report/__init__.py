"""One self-contained HTML file: no script, no outside host, readable aloud and on paper."""

from __future__ import annotations

import base64
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from contrafact.readings.figures import number
from contrafact.readings.results import ReportReading, Table, statement_table
from contrafact.report.methods import methods


def render(reading: ReportReading) -> str:
    """The report as HTML. The same reading gives the same text; what changes from run to run is marked ``run``."""
    pages = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    pages.filters |= {"number": number, "uri": _uri}
    registered = [s for s in reading.statements if s.label == "registered"]
    exploratory = [s for s in reading.statements if s.label == "exploratory"]
    tables: list[Table] = []
    if registered:
        tables.append(statement_table(registered, "Registered statements"))
    if exploratory:
        tables.append(statement_table(exploratory, "Exploratory: not registered, and not corrected for how many there are"))
    return pages.get_template("report.html.j2").render(
        reading=reading,
        study=reading.study,
        simulated=reading.study.survey is not None and reading.study.survey.respondents is not None,
        statements=tables,
        notes=[(s.id, s.method, s.caveats) for s in reading.statements],
        methods=methods(reading.study, reading.facts, reading.statements),
    )


def _uri(data: bytes | str, kind: str) -> str:
    raw = data.encode() if isinstance(data, str) else data
    return f"data:{kind};base64,{base64.b64encode(raw).decode()}"

"""One self-contained HTML file: no script, no outside host, readable aloud and on paper."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from contrafact.readings.figures import number
from contrafact.readings.results import ReportReading, Table, statement_table
from contrafact.report.methods import methods
from contrafact.store.files import Files
from contrafact.survey.formats.guard import guarded


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
        calls=reading.facts.get("analyse", {}).get("calls") or {},
        methods=methods(reading.study, reading.facts, reading.statements),
    )


def write_tables(facts: Mapping[str, Any], files: Files, folder: Path) -> list[str]:
    """Tables of a finished analysis for a paper: names of the files written into ``folder``.

    ``statements.csv`` and ``statements.tex`` hold every statement with the command that reproduces it; the plan, all
    answers, and the ratings that each model was fitted to have files of their own, so that the commands run in ``folder``.
    ``facts`` are those of the stage ``analyse``.
    """
    folder.mkdir(parents=True, exist_ok=True)
    rows = pd.DataFrame([*facts["statements"], *facts["beside"]])
    rows = rows.assign(caveats=rows["caveats"].map("; ".join), call=rows["id"].map(facts.get("calls") or {}).fillna(""))
    rows.map(guarded).to_csv(folder / "statements.csv", index=False)
    short = rows[["id", "arm", "component", "estimate", "low", "high", "p", "p_adjusted", "n_participants", "n_images", "unit"]]
    text = short.to_latex(index=False, escape=True, na_rep="not estimable", float_format="%.3g")
    (folder / "statements.tex").write_text(text, encoding="utf-8")
    tables = facts.get("tables") or {}
    for name, sha in tables.items():
        (folder / name).write_bytes(files.get(sha))
    return ["statements.csv", "statements.tex", *tables]


def _uri(data: bytes | str, kind: str) -> str:
    raw = data.encode() if isinstance(data, str) else data
    return f"data:{kind};base64,{base64.b64encode(raw).decode()}"

"""report: one self-contained HTML file and the same as PDF, also where the study stopped early and has to say why."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

import contrafact
from contrafact.readings.results import gather
from contrafact.report import render
from contrafact.report.pdf import report_pdf

if TYPE_CHECKING:
    from contrafact.run.context import Context


def run(context: Context) -> dict[str, Any]:
    """Facts: ``report``, the path of the file, ``sha256`` of its bytes, and ``pdf``, the path of the PDF."""
    found = gather(context.store, context.files, context.study, context.study_id, context.upstream, _made(context))
    html = render(found)
    reports = context.settings.workspace / "reports"
    reports.mkdir(parents=True, exist_ok=True)
    path = reports / f"{context.study.study}.html"
    paper = path.with_suffix(".pdf")
    for target, content in ((path, html.encode()), (paper, report_pdf(found))):
        draft = target.with_suffix(".draft")
        draft.write_bytes(content)
        draft.replace(target)
        context.log_artifact(target)
    return {"report": str(path), "pdf": str(paper), "sha256": hashlib.sha256(html.encode()).hexdigest()}


def _made(context: Context) -> list[tuple[str, str]]:
    """How this came to be: hashes first; what differs from run to run is named ``run: ...``."""
    made = [
        ("study file, sha256 of its content", context.loaded.sha256),
        ("program", f"contrafact {contrafact.__version__}"),
    ]
    for link in context.store.chain(context.study_id):
        made.append((f"run: {link.kind}, hash in the chain", link.hash))  # holds the time
    for stage, facts in context.upstream.items():
        for name, value in facts.items():
            if isinstance(value, str) and len(value) == 64 and name != "registration":
                made.append((f"{stage}: {name.replace('_', ' ')}", value))
            elif name == "files" and isinstance(value, dict):
                made.extend((f"{stage}: {one}", str(digest)) for one, digest in value.items())
    made.append(("run: number of this stage's run", str(context.stage_run_id)))
    return made

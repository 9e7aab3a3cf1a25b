"""report: one self-contained HTML file, also where the study stopped early and has to say why."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

import contrafact
from contrafact.readings.results import gather
from contrafact.report import render

if TYPE_CHECKING:
    from contrafact.run.context import Context


def run(context: Context) -> dict[str, Any]:
    """Facts: ``report``, the path of the file, and ``sha256`` of its bytes."""
    html = render(
        gather(
            context.store, context.files, context.study, context.study_id, context.upstream, _made(context)
        )
    )
    reports = context.settings.workspace / "reports"
    reports.mkdir(parents=True, exist_ok=True)
    path = reports / f"{context.study.study}.html"
    draft = path.with_suffix(".draft")
    draft.write_text(html, encoding="utf-8")
    draft.replace(path)
    context.log_artifact(path)
    return {"report": str(path), "sha256": hashlib.sha256(html.encode()).hexdigest()}


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

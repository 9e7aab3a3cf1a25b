"""analyse: from ratings to statements, exactly as registered; everything else is labelled exploratory."""

from __future__ import annotations

import io
import math
from typing import TYPE_CHECKING, Any

import pandas as pd

from contrafact import study as studies
from contrafact.errors import UserError
from contrafact.study.load import canonical, content
from contrafact.study.schema import NUMBERS
from contrafact.survey import analysis
from contrafact.survey.formats.guard import guarded
from contrafact.survey.respondents import expected_slope, in_world

if TYPE_CHECKING:
    from contrafact.run.context import Context

def run(context: Context) -> dict[str, Any]:
    """Facts: ``statements`` (registered ones, and the slopes that nobody registered), ``beside`` (even components,
    robustness lines, everything again without exclusions), ``truth`` in rendered worlds."""
    study = context.study
    assert study.survey is not None
    registration = unchanged_registration(context)
    # A set withdrawn after registration is an amendment: its ratings stay in the store and out of the analysis.
    withdrawn = {link.payload["set"] for link in context.store.chain(context.study_id) if link.kind == "withdrawal"}

    def own(table: pd.DataFrame) -> pd.DataFrame:
        # A batch is one set of stimuli; answers to an earlier set are kept, and are not evidence about this one.
        table = table[table["batch"] == context.upstream["field"]["batch"]]
        # Simulated people and people are never pooled.
        return table[table["simulated"].astype(bool) == (study.survey.respondents is not None)]

    ratings, choices = own(context.store.ratings_table(context.study_id)), own(context.store.choices_table(context.study_id))
    given = analysis.evidence(ratings, choices)
    dropped = given["set_key"].isin(withdrawn)
    table = given[~dropped]
    if ratings.empty and choices.empty:
        raise UserError(
            f"The study '{study.study}' has no ratings yet.", hint="Import answers: contrafact survey import."
        )
    images = {image.key: image.covariates for image in context.store.images(context.study_id)}
    covariates = pd.DataFrame.from_dict(images, orient="index", columns=list(study.analysis.heterogeneity), dtype=float)
    found = analysis.statements(study, table, covariates)
    beside = [s for s in found if s.label == "exploratory" and not s.id.startswith("slope-")]
    statements = [s for s in found if s not in beside]

    truth = _truth(context, table)
    tables = {name: rows.map(guarded).to_csv(index=False) for name, rows in analysis.tables(study, table, covariates)}
    tables[analysis.PLAN] = canonical(content(study))
    context.store.put_statements(context.study_id, context.stage_run_id, [*statements, *beside])
    context.store.append_registration(
        context.study_id, "analysis",
        {"registration": registration, "ratings": len(table), "statements": [s.facts() for s in found]},
    )  # fmt: skip
    listing = context.folder / "statements.csv"
    pd.DataFrame([s.facts() for s in (*statements, *beside)]).to_csv(listing, index=False)
    context.log_artifact(listing)
    context.log_metrics({f"{s.id}/estimate": s.estimate for s in statements})
    return {
        "statements": [s.facts() for s in statements],
        "beside": [s.facts() for s in beside],
        "truth": truth,
        "tables": {name: context.files.put(text.encode()) for name, text in tables.items()},
        "calls": analysis.calls(study, table, found),
        "registration": registration,
        "withdrawn": {"sets": sorted(withdrawn), "ratings": int(dropped.sum())},
    }


def unchanged_registration(context: Context) -> str:
    """The hash of the registration that this study still is; anything else is refused before a rating is read."""
    context.store.verify_chain(context.study_id)
    frozen = [link for link in context.store.chain(context.study_id) if "content" in link.payload]
    if not frozen:
        raise UserError(
            f"The study '{context.study.study}' is not registered.",
            hint=f"contrafact register {context.loaded.path}",
        )
    studies.refuse_changes(frozen[-1].payload, context.loaded)
    return frozen[-1].hash


def _truth(context: Context, table: pd.DataFrame) -> float | None:
    """What the simulated people's own answers change per SD of dose where the renderer moved the cause alone: rating
    points of the scale on which the primary claim's question is asked."""
    kept = context.upstream.get("gate", {}).get("truth_readings")
    survey = context.study.survey
    if not kept or survey is None or survey.respondents is None:
        return None
    readings = pd.read_parquet(io.BytesIO(context.files.get(kept)))
    wide = readings[readings["image"].isin(table["image"])].pivot_table(
        index="image", columns="dose", values="reading"
    )
    respondents = in_world(survey.respondents, context.study.world)
    primary = next((h.question for h in context.study.hypotheses if h.primary), survey.questions[0].name)
    scale = next(question.scale for question in survey.questions if question.name == primary)
    if scale not in NUMBERS:
        return None  # the truth is known in points of a scale, not in log-odds of a choice
    slope = expected_slope(
        wide.to_numpy(), wide.columns.to_numpy(float), respondents, attention=survey.attention_trials, scale=scale
    )
    return None if math.isnan(slope) else slope

"""What a study found, gathered for a report or a page: records and facts in, words, tables and figures out."""

from __future__ import annotations

import io
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import pandas as pd
from PIL import Image

from contrafact import seeds
from contrafact.readings.figures import NAMES, Figure, components, dose_response, judge_by_dose, number
from contrafact.stats.dose import UNIT, by_dose
from contrafact.stats.pitfalls import pitfalls
from contrafact.stats.reliability import (
    Reliability,
    kappa,
    krippendorff,
    r2_ceiling,
    retest,
    split_half,
    variance_components,
)
from contrafact.stats.statement import Statement
from contrafact.study.schema import NUMBERS, Hypothesis, Study
from contrafact.survey import behaviour
from contrafact.survey.analysis import evidence

if TYPE_CHECKING:
    from contrafact.store import Store
    from contrafact.store.files import Files

Facts = Mapping[str, Any]
SHARES = {"choice": "share chosen", "best_worst": "best-worst score"}
"""What a figure shows of the answers that are no ratings, by their scale."""
STRIP_ROWS = 6
SHOWN = 112
"""Side in pixels at which a stimulus is shown, so that 32 pixels can be seen."""


@dataclass(frozen=True)
class Table:
    caption: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class Cell:
    """One picture of a strip; ``png`` is None where there is none, and ``alt`` says why."""

    png: bytes | None
    alt: str


@dataclass(frozen=True)
class Strip:
    """Pictures of one direction: a row is an image, a column raw or a dose."""

    caption: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, tuple[Cell, ...]], ...]


@dataclass(frozen=True)
class Claim:
    """A registered claim and what may be said of it, in one sentence that can be read aloud."""

    hypothesis: Hypothesis
    verdict: Literal["supported", "not supported", "not estimable", "not tested"]
    sentence: str


@dataclass(frozen=True)
class ReportReading:
    """Everything a report shows. ``absent`` names what the study did not reach or did not ask for."""

    study: Study
    claims: tuple[Claim, ...]
    stopped: tuple[str, ...]
    advice: tuple[str, ...]
    statements: tuple[Statement, ...]
    figures: tuple[Figure, ...]
    strips: tuple[Strip, ...]
    reliability: tuple[Table, ...]
    pitfalls: tuple[str, ...]
    models: tuple[Table, ...]
    quality: tuple[Table, ...]
    counts: tuple[Table, ...]
    checked: tuple[str, ...]
    truth: str | None
    absent: tuple[str, ...]
    provenance: tuple[tuple[str, str], ...]
    facts: Facts


def gather(
    store: Store,
    files: Files,
    study: Study,
    study_id: int,
    facts: Facts,
    provenance: Sequence[tuple[str, str]] = (),
) -> ReportReading:
    """The reading of one study: ratings, stimuli and reviews from the store, the rest from the facts of its stages."""
    verdicts = Counter(review.verdict for review in store.reviews(study_id))
    return reading(
        study, {**facts, "review": dict(verdicts)}, files, ratings=store.ratings_table(study_id),
        choices=store.choices_table(study_id), texts=store.texts_table(study_id), repeats=store.repeats_table(study_id),
        stimuli=store.stimuli_table(study_id), provenance=provenance,
    )  # fmt: skip


def reading(
    study: Study,
    facts: Facts,
    files: Files | None = None,
    *,
    ratings: pd.DataFrame | None = None,
    choices: pd.DataFrame | None = None,
    texts: pd.DataFrame | None = None,
    repeats: pd.DataFrame | None = None,
    stimuli: pd.DataFrame | None = None,
    provenance: Sequence[tuple[str, str]] = (),
) -> ReportReading:
    """As ``gather``, from tables in memory.

    ``facts`` are those of the finished stages by name; sections whose facts are missing are left out and named in
    ``absent``. ``ratings`` as for ``stats.dose.analyse``, ``choices``, ``texts`` and ``repeats`` as the
    tables of ``Store`` of these names; ``stimuli`` has ``image``, ``direction``, ``arm``, ``draw``, ``dose``, ``pixels_sha256`` and,
    where known, ``judge_dose``.
    """
    found = facts.get("analyse", {})
    statements = tuple(Statement.of(s) for key in ("statements", "beside") for s in found.get(key, ()))
    stopped = tuple(str(facts[stage]["stopped"]) for stage in facts if facts[stage].get("stopped"))
    claims = tuple(claim(h, statements, stopped) for h in sorted(study.hypotheses, key=lambda h: not h.primary))
    figures = list(_figures(study, ratings, choices, statements))
    gate = facts.get("gate", {})
    if gate.get("by_dose"):
        judged = pd.DataFrame(gate["by_dose"])
        figures += [judge_by_dose(rows, str(name)) for name, rows in judged.groupby("direction", sort=True)]
    strips = tuple(_strips(stimuli, files)) if stimuli is not None and files is not None and len(stimuli) else ()
    models, quality = _models(study, facts), _quality(gate)
    counts = (*_counts(facts), *_behaviour(study, ratings, choices, texts))
    seen = pitfalls(ratings, _bounds(study)) if ratings is not None else ()
    if warning := facts.get("field", {}).get("left", {}).get("warning"):
        seen = (warning, *seen)
    if pairs := facts.get("predict", {}).get("near_duplicates"):
        seen = (_twice(pairs), *seen)
    again = pd.DataFrame(columns=["question"]) if repeats is None else repeats
    reliable = tuple(_reliability(study, ratings, again)) if ratings is not None and len(ratings) else ()
    if choices is not None and len(again):
        reliable += tuple(_chosen_again(choices, again))
    absent = [
        sentence
        for here, sentence in (
            (statements, "No statement was made: the study did not reach its analysis."),
            (strips, "No stimuli were made, so none are shown."),
            (models, "No predictor was trained: the stimuli were brought finished, or the study did not get so far."),
            (quality, "Stimulus quality was not measured."),
            (counts, "Nothing was gated, rated or excluded."),
        )
        if not here
    ]
    return ReportReading(
        study=study, claims=claims, stopped=stopped, advice=_advice(facts), statements=statements,
        figures=tuple(figures), strips=strips, reliability=reliable, pitfalls=seen, models=models, quality=quality, counts=counts,
        checked=tuple(_checked(study, statements)), truth=_truth(found, statements), absent=tuple(absent), provenance=tuple(provenance), facts=facts,
    )  # fmt: skip


def p_value(p: float) -> str:
    """As in APA style, without the leading zero."""
    if not math.isfinite(p):
        return "not estimable"
    return "p < .001" if p < 0.001 else f"p = {p:.3f}".replace("0.", ".")


def interval(statement: Statement) -> str:
    if not math.isfinite(statement.low):
        return "no interval"
    return f"{statement.level:.0%} interval {number(statement.low)} to {number(statement.high)}"


def claim(hypothesis: Hypothesis, statements: Iterable[Statement], stopped: Sequence[str] = ()) -> Claim:
    """What may be said of a registered claim."""
    text = hypothesis.claim.rstrip(".")
    tested = next((s for s in statements if s.id == hypothesis.id and s.label == "registered"), None)
    if tested is None:
        why = stopped[0] if stopped else "the study has not reached its analysis"
        return Claim(hypothesis, "not tested", f"Not tested: “{text}”. The reason: {_ended(why)}")
    if tested.verdict is None:
        why = tested.caveats[-1] if tested.caveats else "the data do not determine it"
        return Claim(hypothesis, "not estimable", f"Not estimable: “{text}”. The reason: {_ended(why)}")
    verdict: Literal["supported", "not supported"] = "supported" if tested.verdict else "not supported"
    opening = "The data support the claim" if tested.verdict else "The data do not support the claim"
    against = f", within the margin of ±{number(tested.margin)}" if tested.equivalent else ""
    if tested.equivalent is False:
        against = f", not shown to lie within the margin of ±{number(tested.margin)}"
    return Claim(
        hypothesis,
        verdict,
        f"{opening} “{text}”: the dose slope ({NAMES[tested.arm]}) is {number(tested.estimate)} {tested.unit}, "
        f"{interval(tested)}, {p_value(tested.p_adjusted)}{against}; {tested.n_participants} participants, "
        f"{tested.n_images} images.",
    )


def statement_table(statements: Iterable[Statement], caption: str) -> Table:
    """Statements for people: estimate with interval, p, numbers, verdict."""
    rows = []
    for s in statements:
        verdict = {True: "supported", False: "not supported", None: "not estimable"}[s.verdict]
        if s.equivalent is not None:
            verdict = f"{'equivalent' if s.equivalent else 'not equivalent'} at ±{number(s.margin)}"
        rows.append((
            s.id, f"{NAMES.get(s.arm, s.arm)}, {s.component}", s.direction, s.question, number(s.estimate),
            f"{number(s.low)} to {number(s.high)} ({s.level:.0%})" if math.isfinite(s.low) else "not estimable",
            p_value(s.p), p_value(s.p_adjusted) if s.label == "registered" else "none",
            f"{s.n_ratings} / {s.n_participants} / {s.n_images}",
            verdict if s.label == "registered" else "exploratory",
        ))  # fmt: skip
    columns = (
        "statement", "component", "direction", "question", "estimate", "interval", "p", "p, Holm",
        "ratings / people / images", "verdict",
    )  # fmt: skip
    return Table(caption, columns, tuple(rows))


def _ended(sentence: str) -> str:
    return sentence if sentence.endswith((".", "!", "?")) else f"{sentence}."


def _figures(
    study: Study, ratings: pd.DataFrame | None, choices: pd.DataFrame | None, statements: Sequence[Statement]
) -> Iterable[Figure]:
    asked = {question.name: question for question in study.survey.questions} if study.survey else {}
    given = [table for table in (ratings, None if choices is None else evidence(choices.head(0), choices)) if table is not None]
    for table in given:
        for (direction, name), rows in table.groupby(["direction", "question"], sort=True):
            means = by_dose(rows)
            if len(means):
                question = asked.get(str(name))
                what = SHARES.get(question.scale, "mean rating") if question else "mean rating"
                yield dose_response(means, question.text if question else str(name), str(direction), what)
    shown: dict[tuple[str, str], list[Statement]] = {}
    for s in statements:
        group = shown.setdefault((s.direction, s.question), [])
        # One mark for each arm: the registered statement is first, variants of it are in the tables.
        if s.arm in NAMES and not any((s.arm, s.component) == (other.arm, other.component) for other in group):
            group.append(s)
    for group in shown.values():
        yield components(group)


def _strips(stimuli: pd.DataFrame, files: Files) -> Iterable[Strip]:
    for direction, rows in stimuli.groupby("direction", sort=True):
        for arm in ("treated", "sham", "placebo"):
            own = rows[rows["arm"].isin([arm, "null", "raw"])]
            if not (own["arm"] == arm).any():
                continue
            if arm == "placebo":  # one permutation an image is enough to see what placebo looks like
                first = own[own["arm"] == arm].groupby("image")["draw"].transform("min")
                own = own[(own["arm"] != arm) | (own["draw"] == first.reindex(own.index))]
            doses = sorted(own.loc[own["arm"] != "raw", "dose"].unique())
            raw = ["raw"] if (own["arm"] == "raw").any() else []
            keys = sorted(own.loc[own["arm"] == arm, "image"].unique(), key=str)
            step = max(len(keys) // STRIP_ROWS, 1)  # spread over all images, chosen by nothing but their names
            shown = keys[::step][: STRIP_ROWS if arm == "treated" else 2]
            lines = []
            for key in shown:
                one = own[own["image"] == key]
                cells = [_cell(one[one["arm"] == "raw"], key, "raw", files) for _ in raw]
                for dose in doses:
                    at = one[(one["arm"] != "raw") & (one["dose"] == dose)]
                    cells.append(_cell(at, key, f"{NAMES[arm]}, dose {number(dose)}" if dose else f"dose 0, beside {NAMES[arm]}", files))
                lines.append((str(key), tuple(cells)))
            yield Strip(
                f"{NAMES[arm].capitalize()}, direction “{direction}”: {len(shown)} of {len(keys)} images, "
                "spread over their names; each row is one image, each column one requested dose (SD).",
                (*raw, *(number(dose) for dose in doses)),
                tuple(lines),
            )


def _cell(rows: pd.DataFrame, key: object, what: str, files: Files) -> Cell:
    rows = rows[rows["pixels_sha256"].notna()]
    if rows.empty:
        return Cell(None, f"no picture of image {key} at {what}")
    row = rows.iloc[0]
    judged = row.get("judge_dose")
    alt = f"Image {key}, {what}" + (f", the judge reads {number(float(judged))} SD" if pd.notna(judged) else "")
    with Image.open(io.BytesIO(files.get(str(row["pixels_sha256"])))) as picture:
        side = max(SHOWN, *picture.size)
        larger = picture.convert("RGB").resize((side, side), Image.Resampling.LANCZOS)
    target = io.BytesIO()
    larger.save(target, "PNG", optimize=True)
    return Cell(target.getvalue(), alt)


_LABELS = {
    "judge_flip_rate": "judge: share of decisions flipped at the extreme dose",
    "judge_spearman": "judge: rank correlation of dose and reading",
    "judge_slope": "judge: SD moved per SD requested",
    "judge_mae": "judge: mean absolute miss (SD)",
    "leakage_max_sd": "leakage, worst held covariate (signed mean, SD)",
    "null_max_error": "dose 0: largest error (range 0 to 1)",
    "artefact_auc": "artefact detector: AUC, .5 is no mark",
    "edit_auc": "editor's mark, treated against sham: AUC, .5 is no more than editing leaves",
    "lpips": "perceptual distance to the unedited picture, VGG-16 (needs card.vgg)",
    "clip_similarity": "open_clip cosine with the unedited picture (needs card.clip)",
    "anomaly": "error of drawing anew, edited over unedited pictures: 1 is no worse",
    "moves": "judge's probes: SD per SD of dose",
    "locality": "share of pixels that holds .9 of the change",
    "minimality": "pixel change (range 0 to 1) for each SD that the judge moves",
    "frechet": "Fréchet distance to real pictures, judge's features",
    "frechet_floor": "the same between two halves of the real pictures",
    "kid": "kernel distance to real pictures, judge's features",
    "kid_floor": "the same between two halves of the real pictures (kernel)",
    "precision": "edited pictures within reach of real ones",
    "recall": "real pictures within reach of edited ones",
    "composition": "ten null edits, one after another: mean pixel error (range 0 to 1)",
    "reversibility": "edited and edited back: mean pixel error (range 0 to 1)",
    "realism": "distance to real features (SD of real distances)",
    "ssim": "structural similarity to dose 0",
    "l1": "mean absolute pixel change (range 0 to 1)",
    "sets_passed": "matched sets that passed the gate",
    "sets_failed": "matched sets stopped by the gate",
    "in_support": "images in support",
    "out_of_support": "images out of support, not edited",
    "doses_not_reached": "doses that the guide's reading misses by more than a quarter",
    "turned_away": "given no list by their answers to the screening questions",
    "unfit": "screened out",
    "full": "quota full",
    "repeats": "answers to trials shown a second time (reliability alone)",
    "keep": "stimuli kept by reviewers",
    "reject": "stimuli rejected by reviewers",
    "slope": "judge: SD moved per SD requested",
    "slope_low": "judge's slope, lower end of the 95% interval",
    "slope_high": "judge's slope, upper end of the 95% interval",
}  # fmt: skip


def _label(key: str) -> str:
    return _LABELS.get(key, key.replace("_", " ").replace(".", ", "))


def _shown(value: object) -> str:
    if value is None:
        return "not estimable"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}".replace(",", "\N{NARROW NO-BREAK SPACE}")
    if isinstance(value, float):
        return f"{value:.1e}" if value and abs(value) < 0.005 else number(value, 3)
    if isinstance(value, Mapping):
        return "; ".join(f"{_label(str(key))} {_shown(one)}" for key, one in value.items()) or "none"
    if isinstance(value, list | tuple):
        return ", ".join(_shown(one) for one in value) or "none"
    return str(value)


def _plain(caption: str, values: Mapping[str, object], columns: tuple[str, str] = ("measure", "value")) -> list[Table]:
    rows = tuple((_label(key), _shown(value)) for key, value in values.items())
    return [Table(caption, columns, rows)] if rows else []


def _bounds(study: Study) -> dict[str, tuple[float, float]]:
    questions = study.survey.questions if study.survey else ()
    return {question.name: NUMBERS[question.scale] for question in questions if question.scale in NUMBERS}


STIMULUS = ["image", "direction", "arm", "draw", "dose"]


def _reliability(study: Study, ratings: pd.DataFrame, again: pd.DataFrame) -> Iterable[Table]:
    """How far the ratings of each question can be trusted, and what they leave for anything to explain; ``again`` are the
    answers to trials that were shown a second time."""
    scales = {question.name: question.scale for question in study.survey.questions} if study.survey else {}
    both = pd.concat([ratings.assign(turn=0), again[again["question"].isin(ratings["question"])].assign(turn=1)])
    both = both[~both["excluded"].astype(bool)] if "excluded" in ratings else both
    both = both[both["value"].notna()]
    keys = [name for name in STIMULUS if name in ratings]
    both = both.assign(stimulus=both.groupby(keys, dropna=False).ngroup())
    for name, turns in both.groupby("question", sort=True):
        own = turns[turns["turn"] == 0]
        rng = seeds.generator(study.seed, "reliability", name)
        found = variance_components(own, "stimulus")
        several = found.absolute(found.per_unit)
        kind: Literal["ordinal", "interval"] = "ordinal" if scales.get(str(name)) == "likert7" else "interval"
        wide = own.pivot_table(index="stimulus", columns="participant", values="value", sort=False)
        measured = [
            krippendorff(wide.to_numpy(), kind, rng, resamples=500),
            split_half(own, rng, unit="stimulus", halves=100),
        ]
        if turns.duplicated(["participant", "stimulus"]).any():
            measured.append(retest(turns, rng))
        lines = [
            Reliability("one rating (ICC of variance components)", found.absolute(1), math.nan, math.nan),
            Reliability(f"mean of a stimulus, {number(found.per_unit, 1)} ratings", several, math.nan, math.nan),
            *measured,
            Reliability("ceiling of R² for what predicts a stimulus's mean", r2_ceiling(several), math.nan, math.nan),
        ]
        yield Table(
            f"Reliability of “{name}”: {found.n} ratings of {found.n_units} stimuli by {found.n_participants} participants",
            ("measure", "value", "interval"),
            tuple(
                (one.name, number(one.estimate), f"{number(one.low)} to {number(one.high)} ({one.interval})" if one.interval else "none")
                for one in lines
            ),
        )


def _chosen_again(choices: pd.DataFrame, again: pd.DataFrame) -> Iterable[Table]:
    """How often people choose the same picture when the same trial is shown a second time."""
    trial = ["batch", "list_number", "question", "shown"]

    def chosen(table: pd.DataFrame) -> pd.DataFrame:
        rows = table[~table["excluded"].astype(bool) & table["question"].isin(choices["question"])]
        each = rows.sort_values("place").groupby(["rating_id", *trial[:3]], as_index=False)
        return each.agg(shown=("stimulus", tuple), value=("value", "first"))

    both = chosen(choices).merge(chosen(again), on=trial, suffixes=("", "_again"))
    for name, own in both.groupby("question", sort=True):
        found = kappa(own[["value", "value_again"]])
        interval = f"{number(found.low)} to {number(found.high)} ({found.interval})" if found.interval else "none"
        same = number(float((own["value"] == own["value_again"]).mean()))
        yield Table(
            f"The same trial again, “{name}”: {len(own)} choices by {own['list_number'].nunique()} participants",
            ("measure", "value", "interval"),
            (("test-retest: share of the same choice", same, "none"), (f"test-retest: {found.name}", number(found.estimate), interval)),
        )


def _models(study: Study, facts: Facts) -> tuple[Table, ...]:
    # What is rendered is known without error; a photograph's label stands alone, and with it its reliability.
    ceiling = number(r2_ceiling(1.0 if study.world is not None else math.nan))
    predict = facts.get("predict", {})
    found = dict(predict.get("quality") or {})
    found |= {role: predict[role] for role in ("guide", "judge") if isinstance(predict.get(role), Mapping)}
    found |= {f"probe {name}": one for name, one in (predict.get("probes") or {}).items()}
    rows = tuple(
        (
            _label(name), str(one.get("metric", "")).upper().replace("R2", "R²"), _shown(one.get("value")),
            f"{_shown(one.get('low'))} to {_shown(one.get('high'))}",
            ceiling if str(one.get("metric", "")).lower() == "r2" else "none",
        )
        for name, one in found.items()
        if isinstance(one, Mapping) and "value" in one
    )  # fmt: skip
    tables = [Table("Predictors on validation images", ("predictor", "measure", "value", "95% interval", "ceiling of R²"), rows)]
    calibration = _plain("Calibration", predict.get("calibration") or {}, ("predictor", "temperature and error"))
    return (*(tables if rows else []), *calibration)


def _quality(gate: Facts) -> tuple[Table, ...]:
    tables = _plain("Stimuli before the gate, measured by models that never steered them", gate.get("quality") or {})
    rows = tuple(_held(name, covariate, one) for name, found in (gate.get("held") or {}).items() for covariate, one in found.items())
    if rows:
        columns = ("direction", "covariate", "leakage, SD per SD of dose", "90% interval", "margin", "p", "verdict", "worst signed mean, SD")
        tables.append(Table("Held covariates, tested for equivalence", columns, rows))
    for name, one in (gate.get("directions") or {}).items():
        tables += _plain(f"Direction “{name}”, before the gate", _direction(one))
    tables += _plain(
        "What an outside reader sees move in the treated arm (SD of each factor per SD of dose)",
        gate.get("factor_slopes") or {}, ("factor", "slope"),
    )  # fmt: skip
    drawn = {
        name: f"{_shown(one.get('slope'))} [{_shown(one.get('low'))}, {_shown(one.get('high'))}]"
        for name, one in (gate.get("drawability") or {}).items()
    }
    tables += _plain(
        "What the model can draw: SD that the judge's side reads for each SD of a condition, 95% interval", drawn,
        ("condition", "slope"),
    )  # fmt: skip
    drawable = {name: "drawable" if ok else "not drawable" for name, ok in (gate.get("drawable") or {}).items()}
    return (*tables, *_plain("Can the direction be drawn?", drawable, ("direction", "verdict")))


def _twice(pairs: Sequence[Facts]) -> str:
    """The warning about pictures that stand in two splits."""
    named = "; ".join(f"{p['image']} ({p['split']}) and {p['other']} ({p['other_split']})" for p in pairs[:10])
    more = f"; and {len(pairs) - 10} more" if len(pairs) > 10 else ""
    return (
        f"Nearly the same picture stands in two splits, {len(pairs)} pair{'s' * (len(pairs) > 1)}: {named}{more}. What a "
        "model has learned by heart it does not predict: give such pictures one unit_id, or remove one of each pair."
    )


def _held(name: str, covariate: str, one: Facts) -> tuple[str, ...]:
    """A row of the table of held covariates; a probe that hardly knows its covariate cannot tell that it was held."""
    if not one.get("estimable", True):
        return (name, covariate, *["not estimable"] * 6)
    test = one.get("equivalence") or {}
    verdict = {True: "equivalent", False: "not equivalent", None: "not estimable"}[test.get("equivalent")]
    return (
        name, covariate, _shown(test.get("estimate")), f"{_shown(test.get('low'))} to {_shown(test.get('high'))}",
        _shown(test.get("margin")), _shown(test.get("p")), verdict, _shown(one.get("signed_max_sd")),
    )  # fmt: skip


def _direction(one: Facts) -> dict[str, object]:
    """The measures of one direction, each arm's effect on the judge on a line of its own."""
    flat: dict[str, object] = {key: value for key, value in one.items() if key != "effects"}
    for arm, effects in (one.get("effects") or {}).items():
        flat[f"{arm}: judge's slope"] = effects.get("slope")
        flat[f"{arm}: decisions flipped"] = effects.get("flip_rate")
        flat[f"{arm}: rank correlation with dose"] = effects.get("spearman")
    return flat


def _counts(facts: Facts) -> tuple[Table, ...]:
    generate, gate, field = (facts.get(stage, {}) for stage in ("generate", "gate", "field"))
    stimuli = {
        key: source[key]
        for source, keys in (
            (facts.get("ingest", {}), ("images", "units", "by_split", "missed")),
            (generate, ("stimuli", "in_support", "out_of_support", "doses_not_reached")),
            (gate, ("sets_passed", "sets_failed", "reasons")),
            (facts.get("review", {}), ("keep", "reject")),
        )
        for key in keys
        if key in source
    }
    people = {key: field[key] for key in ("participants", "ratings", "repeats", "languages", "turned_away", "excluded") if key in field}
    left = {
        f"left at a picture of the arm {NAMES.get(row['arm'], row['arm'])}": f"{row['left']} of {row['reached']} reached"
        for row in field.get("left", {}).get("by_arm", ()) if row["left"]
    }  # fmt: skip
    return (
        *_plain("Images and stimuli", stimuli, ("what", "count")),
        *_plain("People", people | left, ("what", "count")),
    )


def _behaviour(study: Study, *tables: pd.DataFrame | None) -> Iterable[Table]:
    """What people did beside answering, which leaves nobody out."""
    some = [table[table["place"] == 0] for table in tables if table is not None and len(table) and "away" in table]
    if some and study.survey is not None:
        people = behaviour.flags(pd.concat(some), {question.name: question.text for question in study.survey.asked})
        yield Table(
            "Behaviour (nobody is left out for it; the frozen rules alone leave people out)", ("what", "people", "how often"),
            tuple(behaviour.told(people)),
        )  # fmt: skip


def _checked(study: Study, statements: Sequence[Statement]) -> Iterable[str]:
    """Whether people saw what was changed, of each direction, where the study names the question that asks for it."""
    check = study.analysis.manipulation_check
    for direction in dict.fromkeys(s.direction for s in statements if s.question == check):
        own = [s for s in statements if (s.question, s.direction, s.component) == (check, direction, "odd")]
        tested = next((s for arm in ("treated-sham", "treated") for s in own if s.arm == arm and math.isfinite(s.low)), None)
        if tested is None:
            yield f"Whether people saw the change of “{direction}” cannot be told: “{check}” gives no estimate."
            continue
        slope = f"{number(tested.estimate)} {tested.unit}, {interval(tested)}"
        if tested.low <= 0 <= tested.high:
            yield (
                f"It is not shown that people saw the change of “{direction}”: on “{check}” the slope ({NAMES[tested.arm]}) is "
                f"{slope}. Where nothing is seen, no effect on another answer says nothing about one that is."
            )
        else:
            yield f"People saw the change of “{direction}”: on “{check}” the slope ({NAMES[tested.arm]}) is {slope}."


def _truth(found: Facts, statements: Sequence[Statement]) -> str | None:
    truth = found.get("truth")
    if truth is None:
        return None
    tested = next((s for s in statements if (s.arm, s.component, s.unit) == ("treated-sham", "odd", UNIT)), None)
    opening = (
        "In this rendered world the truth is known: re-rendering the cause alone, by as much as moves the judge like the "
        f"stimuli do, moves these simulated respondents by {number(truth)} rating points per SD of dose."
    )
    if tested is None or not math.isfinite(tested.low):
        return opening
    covered = "contains" if tested.low <= truth <= tested.high else "does not contain"
    return (
        f"{opening} The estimate is {number(tested.estimate)}, and its interval ({number(tested.low)} to "
        f"{number(tested.high)}) {covered} the truth."
    )


def _advice(facts: Facts) -> tuple[str, ...]:
    if facts.get("predict", {}).get("stopped"):
        return (
            "More labelled images, above all of the rarer outcome.",
            "A crop that shows what the outcome can depend on, or larger images.",
            "An outcome that people can tell from the same picture; where they cannot, a model cannot either.",
        )
    gate = facts.get("gate", {})
    lost = [name for name, ok in (gate.get("drawable") or {}).items() if not ok]
    if lost or gate.get("stopped"):
        named = " and ".join(f"“{name}”" for name in lost) or "the direction"
        return (
            f"Where {named} follows the condition, try `kind: guidance`: it needs no generator that has learned the outcome.",
            "More training images, or a start from a model trained on many unlabelled ones (`images.extra`, `model.start`).",
            "More `images_seen`, or a larger `edit.depth`, so that larger shapes may change.",
            "A predictor with a narrower interval: a judge that hardly knows the outcome cannot see it change.",
        )
    return ()

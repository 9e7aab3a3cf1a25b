"""A frozen registration in the words of the usual templates: OSF preregistration and AsPredicted, as Markdown.

Everything is taken from the registered content; where a template asks for what a study file does not say, the text says
that it does not. Pasting it into a registry gives the time stamp of a third party.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from contrafact.study.schema import Study
from contrafact.survey.exclusions import RULES

NOT_SAID = "Not stated in the study file."


def preregistrations(payload: Mapping[str, Any], sha256: str, at: str) -> dict[str, str]:
    """File name to Markdown; ``payload`` as registered, ``sha256`` the hash of its link, ``at`` its time (UTC)."""
    study = Study.model_validate_json(json.dumps(payload["content"]))
    foot = (
        f"Frozen by contrafact {payload['code']['version']} at {at} UTC. Hash of the registration: `{sha256}`; study file "
        f"`{payload['sha256']}`; stimulus manifest `{payload['stimuli']}`; code `{payload['code']['sha256']}`."
    )
    return {
        "osf.md": _page(f"Preregistration: {study.title}", _osf(study, payload), foot),
        "aspredicted.md": _page(f"AsPredicted: {study.title}", _aspredicted(study, payload), foot),
    }


def _page(title: str, parts: list[tuple[str, str]], foot: str) -> str:
    body = "\n\n".join(f"## {heading}\n\n{text}" for heading, text in parts)
    return f"# {_safe(title)}\n\n{body}\n\n---\n\n{foot}\n"


def _osf(study: Study, payload: Mapping[str, Any]) -> list[tuple[str, str]]:
    return [
        ("Title", _safe(study.title)),
        ("Description", _safe(study.question) or NOT_SAID),
        ("Hypotheses", _hypotheses(study)),
        ("Study type", "Experiment: participants judge images that were changed along a direction, by known doses."),
        ("Blinding", "Participants are not told dose, arm or direction. Lists are drawn by a seeded program."),
        ("Study design", _design(study)),
        ("Randomisation", _randomisation(study)),
        ("Existing data", "Registration precedes the creation of data: no rating exists when it is frozen."),
        ("Data collection procedures", _collection(study)),
        ("Sample size", _sample(study)),
        ("Sample size rationale", NOT_SAID + " `contrafact power` gives power and ceiling of this very design."),
        ("Stopping rule", "Collection ends when the number of participants is reached. There is no interim test."),
        ("Manipulated variables", _manipulated(study)),
        ("Measured variables", _measured(study)),
        ("Indices", "None: each question is analysed on its own."),
        ("Statistical models", _plan(payload)),
        ("Transformations", "None. Dose is in SD of the outcome score over the validation images."),
        ("Inference criteria", _criteria(study)),
        ("Data exclusion", _exclusion(study)),
        ("Missing data", "Trials without an answer are left out and counted; participants with too many are excluded by rule."),
        ("Exploratory analysis", "Even components, contrasts that are not named above, the by-image robustness line and all results without exclusions; each labelled exploratory."),
    ]  # fmt: skip


def _aspredicted(study: Study, payload: Mapping[str, Any]) -> list[tuple[str, str]]:
    return [
        ("1) Have any data been collected for this study already?", "No. The registration is frozen before the first rating."),
        ("2) What's the main question being asked or hypothesis being tested in this study?", _hypotheses(study)),
        ("3) Describe the key dependent variable(s) specifying how they will be measured.", _measured(study)),
        ("4) How many and which conditions will participants be assigned to?", f"{_manipulated(study)} {_randomisation(study)}"),
        ("5) Specify exactly which analyses you will conduct to examine the main question/hypothesis.", f"{_plan(payload)}\n\n{_criteria(study)}"),
        ("6) Describe exactly how outliers will be defined and handled, and your precise rule(s) for excluding observations.", _exclusion(study)),
        ("7) How many observations will be collected or what will determine sample size?", _sample(study)),
        ("8) Anything else you would like to pre-register?", "What is not named here is reported as exploratory. All results are given without exclusions as well."),
    ]  # fmt: skip


DESIGNS = {
    "within_image": "Within images and within participants: every image exists at each dose, and everybody sees all arms.",
    "between_arm": "Within images, between participants: every image exists at each dose, and each person sees one arm.",
    "pairs": "Two variants of one image side by side, the side balanced; people say which one.",
    "guess": "Two doses of one image side by side, the side balanced; people guess which is the higher and are told.",
    "best_worst": "Several variants of one image side by side; people name the best and the worst.",
}


def _hypotheses(study: Study) -> str:
    lines = []
    for h in sorted(study.hypotheses, key=lambda h: not h.primary):
        lines.append(f"- **{h.id}**{' (primary)' if h.primary else ''}: {_safe(h.claim)}")
    return "\n".join(lines)


def _design(study: Study) -> str:
    return f"{DESIGNS[study.survey.design if study.survey else 'within_image']} {_manipulated(study)}"


def _manipulated(study: Study) -> str:
    doses = ", ".join(f"{dose:g}" for dose in study.doses.grid)
    arms = ["treated (edited along the direction)"]
    if study.arms.sham:
        arms.append("sham (a random direction of the same pixel norm, fresh for each image)")
    if study.arms.placebo:
        arms.append(f"placebo (directions of {study.arms.placebo} predictors trained on permuted labels)")
    directions = list(study.directions) or list(dict.fromkeys(h.direction for h in study.hypotheses))
    return f"Directions: {', '.join(directions)}. Doses: {doses} SD; 0 goes through the same code. Arms: {'; '.join(arms)}."


def _measured(study: Study) -> str:
    assert study.survey is not None
    scales = {
        "vas": "a slider from 0 to 100", "likert7": "seven points, 1 to 7", "choice": "one picture of those shown",
        "best_worst": "the best and the worst of the pictures shown", "text": "in free words",
    }  # fmt: skip
    return "\n".join(
        f"- **{q.name}**: “{_safe(q.text)}”, {scales[q.scale]}, from “{_safe(q.low)}” to “{_safe(q.high)}”"
        for q in study.survey.questions
    )


def _randomisation(study: Study) -> str:
    return (
        "Each participant has a list of his own, drawn from the study's seed: every stimulus is shown before any is shown "
        "again, arms and doses are balanced within lists, order is random, and no image comes twice in a row where that can be."
    )


def _collection(study: Study) -> str:
    assert study.survey is not None
    s, pay = study.survey, study.survey.pay
    who = "Simulated respondents: nothing here is about people." if s.respondents else "Participants of a panel."
    return (
        f"{who} Each judges {s.trials_per_participant} pictures, with {s.attention_trials} attention trials. {_again(s.repeats)}Expected length "
        f"{pay.minutes:g} minutes, paid {pay.hourly:g} {pay.currency} an hour."
    )


def _again(repeats: int) -> str:
    if not repeats:
        return ""
    return f"{repeats} trials are shown a second time; the first answer alone is analysed, the second tells reliability. "


def _sample(study: Study) -> str:
    assert study.survey is not None
    n, trials = study.survey.participants, study.survey.trials_per_participant
    return f"{n} participants with {trials} pictures each: {n * trials} judgements."


def _plan(payload: Mapping[str, Any]) -> str:
    return "\n".join(f"- {_safe(one['method'])}" for one in payload["plan"])


def _criteria(study: Study) -> str:
    alphas = sorted({h.alpha for h in study.hypotheses})
    families = dict.fromkeys(h.family for h in study.hypotheses)
    how = "; ".join(f"{study.analysis.correction(name).words} within the family “{name}”" for name in families)
    return (
        f"Alpha {', '.join(f'{alpha:g}' for alpha in alphas)}; p corrected by {how}; intervals of 95%. "
        "Equivalence is claimed where both one-sided tests against the stated margin pass; a wide interval shows nothing."
    )


def _exclusion(study: Study) -> str:
    return "\n".join(f"- {text}" for text in RULES.values())


def _safe(text: str) -> str:
    """Text of a user as text, not as Markdown or HTML."""
    text = " ".join(text.split()).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    for mark in "\\`*_[]#|":
        text = text.replace(mark, f"\\{mark}")
    return text

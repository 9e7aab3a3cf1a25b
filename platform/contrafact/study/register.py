"""What a registration freezes, and what has changed since.

The payload is plain JSON; the store keeps it in its hash chain together with the time.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

import contrafact
from contrafact import bundle
from contrafact.errors import UserError
from contrafact.study.load import LoadedStudy, canonical, content
from contrafact.study.schema import Hypothesis, Study
from contrafact.study.source import Loc, dotted, shown


def registration_payload(loaded: LoadedStudy, facts: Mapping[str, Any]) -> dict[str, Any]:
    """The frozen content of a registration.

    ``facts["models"]`` maps each model to the sha256 of its weights (empty for finished stimuli) and
    ``facts["stimuli"]`` is the sha256 of the stimulus manifest, ``facts["sets"]`` that of each matched set. Raises UserError where the study has no hypothesis.
    """
    if not loaded.study.hypotheses:
        raise UserError(f"{loaded.path}: no hypotheses to register.", hint="Add `hypotheses:` to the study.")
    return {
        "study": loaded.study.study,
        "yaml": loaded.text,
        "sha256": loaded.sha256,
        "content": content(loaded.study),
        "code": {"version": contrafact.__version__, "sha256": code_hash()},
        "models": dict(sorted(facts["models"].items())),
        "stimuli": facts["stimuli"],
        "sets": dict(sorted(facts.get("sets", {}).items())),
        "plan": [_planned(one, loaded) for one in loaded.study.hypotheses],
    }


def changed_since(payload: Mapping[str, Any], loaded: LoadedStudy) -> list[str]:
    """One sentence for each key of the study that differs from the registered one; empty where none does.

    A key that came to the schema after the registration stands in it with its default, as it was not asked for.
    """
    registered, now = dict(_leaves(_read_today(payload["content"]), ())), dict(_leaves(content(loaded.study), ()))
    sentences = []
    for loc in [*registered, *(loc for loc in now if loc not in registered)]:
        before, after = registered.get(loc), now.get(loc)
        if loc not in now:
            sentences.append(f"`{dotted(loc)}` was {shown(before)} and is gone")
        elif loc not in registered:
            sentences.append(f"`{dotted(loc)}` is new: {shown(after)}")
        elif canonical(before) != canonical(after):
            sentences.append(f"`{dotted(loc)}` was {shown(before)} and is now {shown(after)}")
    return sentences


def _read_today(frozen: dict[str, Any]) -> dict[str, Any]:
    try:
        return content(Study.model_validate_json(canonical(frozen)))
    except ValidationError:  # of keys that are no longer known; they differ, and are named
        return frozen


def refuse_changes(payload: Mapping[str, Any], loaded: LoadedStudy) -> None:
    """Raises UserError, naming the keys, where the study is not the registered one."""
    changes = changed_since(payload, loaded)
    if changes:
        raise UserError(
            f"{loaded.path} is not what was registered: {'; '.join(changes)}.",
            hint=f'Undo the change, or amend: contrafact register {loaded.path} --amend "why".',
        )


def code_hash() -> str:
    """sha256 over the sources of all rooms and stages, by name and content."""
    digest = hashlib.sha256()
    rooms = Path(contrafact.__file__).parent
    for name, root in (("rooms", rooms), ("pipelines", bundle.folder("pipelines"))):
        for file in sorted(each for each in root.rglob("*") if each.is_file() and each.suffix != ".pyc"):
            # In the wheel the leaves lie inside the package; they are not rooms.
            if name == "rooms" and file.relative_to(root).parts[0] in (
                "pipelines",
                "dashboards",
                "migrations",
                "studies",
            ):
                continue
            digest.update(f"{name}/{file.relative_to(root).as_posix()}\0".encode())
            digest.update(hashlib.sha256(file.read_bytes()).digest())
    return digest.hexdigest()


def _planned(one: Hypothesis, loaded: LoadedStudy) -> dict[str, Any]:
    """The analysis of one hypothesis: its own keys, and the sentence that a reader of the registration meets."""
    family = [each.id for each in loaded.study.hypotheses if each.family == one.family]
    how = loaded.study.analysis.correction(one.family).words
    return {
        **one.model_dump(mode="json"),
        "correction": _correction(one, family, how),
        "method": _method(one, family, loaded.study, how),
    }


def _correction(one: Hypothesis, family: list[str], how: str) -> str:
    return "none" if len(family) == 1 else f"{how} over {', '.join(family)}"


_MODELS = {
    "linear": ("rating points", "linear mixed model"),
    "ordinal": ("log-odds", "cumulative logit mixed model"),
    "logit": ("log-odds of choice", "logit mixed model of choices"),
}
"""The unit of a margin, and the model's name."""
_SCORES = {"choice": "share chosen", "best_worst": "best-worst score"}


def _method(one: Hypothesis, family: list[str], study: Study, how: str) -> str:
    unit, model = _MODELS[study.estimator(one.question)]
    scale = next((q.scale for q in study.survey.questions if q.name == one.question), "") if study.survey else ""
    if unit == "rating points" and scale in _SCORES:
        unit, model = _SCORES[scale], f"{model} of the {_SCORES[scale]}"
    if "-" in one.arm:
        first, second = one.arm.split("-")
        what = f"the dose slope of {first} minus that of {second}"
    else:
        what = f"the dose slope of {one.arm}"
    if one.test == "equivalence":
        test = f"two one-sided tests against ±{one.margin:g} {unit} per SD of dose"
    else:
        test = {"two-sided": "a two-sided test", "greater": "a test of above 0", "less": "a test of below 0"}[
            one.alternative
        ]
    rest = (
        ""
        if len(family) == 1
        else f", corrected by {how} over the family '{one.family}' ({len(family)} hypotheses)"
    )
    return (
        f"{one.id}: {what} on '{one.question}' for direction '{one.direction}', from a {model} with crossed "
        f"random effects of participant and image; {test} at alpha {one.alpha:g}{rest}."
    )


def _leaves(value: Any, loc: Loc) -> Iterator[tuple[Loc, Any]]:
    """Every place of a nested value; an empty mapping or list is a place of its own."""
    if isinstance(value, Mapping) and value:
        for key, item in value.items():
            yield from _leaves(item, (*loc, key))
    elif isinstance(value, list) and value:
        for index, item in enumerate(value):
            yield from _leaves(item, (*loc, index))
    else:
        yield loc, value

"""The methods section, written from the study and from what was measured, never from what was hoped."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from contrafact.readings.figures import number
from contrafact.stats.mixed import Family
from contrafact.stats.statement import Statement
from contrafact.study.schema import Direction, Hypothesis, Study
from contrafact.survey.analysis import estimators

_SCALES = {
    "vas": "0 to 100", "likert7": "1 to 7", "choice": "one of two pictures", "best_worst": "best and worst of several pictures",
    "text": "in free words",
}  # fmt: skip
_WORLDS = {
    "true": "a planted cause and otherwise independent factors",
    "confounded": "a planted cause and a correlated nuisance without effect",
    "null_outcome": "an outcome that depends on nothing",
    "null_rating": "a planted cause that respondents do not care about",
    "artefact": "respondents who react to the mark of editing alone",
}


def methods(study: Study, facts: Mapping[str, Any], statements: Sequence[Statement]) -> tuple[tuple[str, str], ...]:
    """Paragraphs with their headings; a part of the study that does not exist has none."""
    parts = [("Material", _material(study))]
    if study.stimuli is None:
        parts += [("Predictors", _predictors(study)), ("Generator", _generator(study))]
        parts += [(f"Direction “{name}”", _direction(study, one)) for name, one in study.directions.items()]
        parts += [("Arms and gate", _arms(study))]
    if study.survey is not None:
        parts.append(("People", _people(study, facts)))
    if study.hypotheses and study.survey is not None:
        parts += [("Hypotheses", " ".join(_hypothesis(h) for h in study.hypotheses)), ("Analysis", _analysis(study, statements))]
    return tuple(parts)


def _material(study: Study) -> str:
    if study.world is not None:
        w = study.world
        return (
            f"Images are rendered: {w.images:,} of the world “{w.name}” with {_WORLDS[w.kind]}. The planted cause is "
            f"“{w.cause}”. Nothing in this study is about people outside the program."
        )
    if study.stimuli is not None:
        return "The stimuli were brought finished; how they were made is not known to this report."
    shares = ""
    if study.images is not None:
        splits = study.images.splits.model_dump()
        shares = ", ".join(f"{name} {share:.0%}" for name, share in splits.items())
    return (
        f"Images were divided by unit, so that nobody sees an image whose unit trained a model that made or judged it "
        f"({shares})."
    )


def _predictors(study: Study) -> str:
    p = study.predictors
    apart = (
        f"It learned from {p.guide.steering_share:.0%} of the training units; levels and doses are read by a second "
        "ensemble, trained on photographs of the other units, whose gradient is not followed. "
        if p.guide.steering_share < 1
        else ""
    )
    return (
        f"The guide, an ensemble of {p.guide.heads} heads trained on real and denoised images, alone steers edits. {apart}The "
        f"judge was trained apart from it, on other units and with another architecture; it never steers and alone "
        f"scores. Intervals of predictors come from {p.bootstrap:,} resamples of units of the validation images."
    )


def _generator(study: Study) -> str:
    m = study.model
    start = "trained from scratch" if m.start == "scratch" else "fine-tuned from a model named in the study"
    return (
        f"The images are edited by a conditional diffusion model, {start} on the outcome and the declared covariates "
        f"alone, predicting {m.prediction} under a {m.schedule} schedule of {m.timesteps:,} steps; "
        f"{m.images_seen:,} images were shown in training, and the weights are an average with a half-life of "
        f"{m.ema_halflife_images:,.0f} images."
    )


def _direction(study: Study, direction: Direction) -> str:
    e = direction.edit
    way = {
        "condition": "by a shift of the condition",
        "guidance": "by the guide's gradient on the clean estimate",
        "contrast": "along a linear discriminant of the guide's features between two sets of images",
        "noise_aware": "by the gradient of a classifier trained on noisy images",
        "text": f"from the phrase “{direction.text.start}” to “{direction.text.end}” as an open_clip model sees them"
        if direction.text
        else "",
        "slider": "by the scale of a low-rank adapter trained for it",
        "latent": "along the slope of the network's bottleneck on the target",
        "arithmetic": "along " + " + ".join(f"{w:g} × “{name}”" for name, w in direction.sum.items())
        + (f", orthogonal to {', '.join(direction.orthogonal_to)}" if direction.orthogonal_to else ""),
    }[direction.kind]
    begun = {
        "direct": "inverted by a deterministic inversion",
        "edit_friendly": "inverted by an edit-friendly inversion",
        "noised": "covered with noise",
    }[e.inversion]
    replayed = "drawn anew" if e.inversion == "noised" else "replayed"
    where = {
        "change": "" if e.change_quantile == 0 else "where an automatic mask finds the change to be large",
        "saliency": "where the guide's gradient is large",
        "conditions": "where the model draws otherwise under other conditions",
        "manifest": "inside the mask that the manifest names for each image",
    }.get(e.mask if isinstance(e.mask, str) else "", f"inside the box {e.mask} (left, top, width, height as shares)")
    kind = {"colour": "as one colour map of the whole", "light": "in soft light alone", None: ""}[e.style]
    bounds = f" Pictures change only {' and '.join(filter(None, (where, kind)))}." if where or kind else ""
    held = ", ".join(f"“{name}”" for name in direction.hold) or "no covariate"
    audit = f" A protected attribute is aimed at: {direction.audit}" if direction.audit else ""
    return (
        f"Each image is {begun} to {e.depth:.0%} of the noise schedule in {e.steps} steps and {replayed}"
        f" under guidance weight w = {e.w:g} (scale s = {1 + e.w:g}); "
        f"the edit aims at “{direction.target}” {way}, to doses of {', '.join(number(d) for d in study.doses.grid)} "
        f"SD of {'the outcome score' if direction.target == 'outcome' else direction.target} relative to the image's own level. Held: {held}. An image takes part where its level "
        f"and the whole grid stay between the {study.doses.support[0]:.1%} and {study.doses.support[1]:.1%} quantiles "
        f"of real scores.{bounds}{audit}"
    )


def _arms(study: Study) -> str:
    sham = "a sham direction, fresh for every image and matched on pixel norm" if study.arms.sham else "no sham"
    placebo = f"{study.arms.placebo} guides trained on permuted labels" if study.arms.placebo else "no placebo"
    g = study.gate
    return (
        f"{study.arms.images} images were to be edited. Control arms: dose 0 through the same code, {sham}, and {placebo}. "
        f"The gate looks at quality only and at whole matched sets: dose 0 error at most {g.null_error:g}, leakage of one "
        f"stimulus at most {number(g.leakage_sd)} SD, pixel norm of controls {number(g.norm_ratio[0])} to "
        f"{number(g.norm_ratio[1])} of the treated, distance to real features at most {number(g.realism)} SD."
    )


def _people(study: Study, facts: Mapping[str, Any]) -> str:
    s = study.survey
    assert s is not None
    asked = "; ".join(f"“{q.text}” ({_SCALES[q.scale]}{'' if q.scale == 'text' else f': {q.low} to {q.high}'})" for q in s.questions)
    text = (
        f"{s.participants} participants were to judge {s.trials_per_participant} pictures each in balanced lists, with "
        f"{s.attention_trials} attention trials. Asked was {asked}."
    )
    if s.languages:
        text += f" The survey was offered in {', '.join((s.language, *s.languages))}."
    if s.pay.bonus:
        text += f" Each right guess earned a bonus of {s.pay.bonus:.2f} {s.pay.currency}."
    if s.repeats:
        text += (
            f" {s.repeats} trials of each list were shown a second time, half a list after the first; the first answer alone counts "
            "as evidence and for the rules of exclusion, the second tells the test-retest reliability."
        )
    if s.respondents is None:
        return text
    r = s.respondents
    return (
        f"{text} The respondents are simulated. They see pixels only, through a reader of “{r.reads}” that no model of the "
        f"study shares, and answer with {number(r.slope, 1)} rating points per SD of what they read, with effects of "
        f"person and image, noise of {number(r.noise_sd, 1)} points, {r.lapse:.0%} lapses and {r.inattentive:.0%} who do "
        "not look. They are never pooled with people."
    )


def _hypothesis(h: Hypothesis) -> str:
    side = {"two-sided": "two-sided", "greater": "one-sided, greater", "less": "one-sided, less"}[h.alternative]
    test = (
        f"equivalence within ±{h.margin:g} per SD of dose" if h.test == "equivalence" else f"difference, {side}"
    )
    primary = ", primary" if h.primary else ""
    return f"{h.id} ({h.arm}, {test}, alpha {h.alpha:g}, family “{h.family}”{primary}): {h.claim.rstrip('.')}."


_ESTIMATORS: dict[Family, str] = {
    "gaussian": (
        "by a linear mixed model (REML; degrees of freedom are Satterthwaite's from the observed information)"
    ),
    "ordinal": (
        "by a cumulative logit mixed model (Laplace), since the means of seven steps can mislead; its variances count as "
        "mean squares on the levels they rest on, which widens intervals and gives the degrees of freedom"
    ),
    "binary": (
        "by a logit mixed model of what each picture is worth (Bradley and Terry's model with covariates, Laplace; the intercept "
        "is the effect of standing first), its variances counted like those of the cumulative model"
    ),
}
_BEST_WORST = (
    " of scores (best 1, worst -1, else 0), in contrasts within trials; the logit model beside it takes the best and the worst of "
    "a trial as one choice with twice the difference (Marley and Louviere 2005)"
)
_LINES: dict[Family, str] = {"gaussian": "the linear mixed model", "ordinal": "the cumulative logit mixed model", "binary": "the logit mixed model"}


def _analysis(study: Study, statements: Sequence[Statement]) -> str:
    assert study.survey is not None
    nested = "; each arm has a level of its own and people differ in their slope on every arm" if study.survey.design == "between_arm" else ""
    text = (
        "Answers were explained by the dose of each arm and its absolute value, with participants and images as crossed "
        "random effects, both with their own slope on the treated dose, and with random slopes of sham by image and of "
        f"placebo by permutation{nested}. "
    )
    for question in study.survey.questions:
        if question.scale == "text":
            continue
        first, *others = estimators(study, question)
        beside = "an exact sign test of participants" if first == "binary" else "paired slopes of each image"
        lines = " and ".join([*(_LINES[family] for family in others), beside])
        worth = _BEST_WORST if question.scale == "best_worst" else ""
        text += f"“{question.name}” was analysed {_ESTIMATORS[first]}{worth}; beside it as robustness lines stand {lines}. "
        if first == "binary":
            text += "How often the higher treated dose is chosen, and whether that grows along the list, is told beside, as exploratory. "
    if wanted := study.analysis.heterogeneity:
        text += (
            f"Whether the treated slope differs with {', '.join(wanted)} of the images is told by interactions in one model, shrunken "
            "towards 0 by a common normal distribution. "
        )
    if check := study.analysis.manipulation_check:
        text += (
            f"“{check}” is the manipulation check. Effects on other answers through it are products of two slopes with Monte Carlo "
            "intervals; what is observed and not drawn by lot is association. "
        )
    families = dict.fromkeys(h.family for h in study.hypotheses)
    how = " and ".join(f"{study.analysis.correction(name).words} within the family “{name}”" for name in families)
    text += (
        f"Registered p are corrected by {how}; equivalence is two one-sided tests with the "
        "interval that belongs to them. Everything that was not registered is labelled exploratory."
    )
    caveats = tuple(dict.fromkeys(caveat for s in statements if s.label == "registered" for caveat in s.caveats))
    return f"{text} Of this fit: {'; '.join(caveats)}." if caveats else text

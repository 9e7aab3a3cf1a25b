"""The study before any money is spent: simulated people answer its own lists, and its own analysis reads them.

Lists, respondents, exclusions and analysis are those of the study itself; only the pictures are stood in for. A treated
picture moves the reading by its dose and no control moves it at all, so ``respondents.slope`` is the effect in rating points
per SD of dose; an image's own level is in ``image_sd``. Without ``survey.respondents`` the schema's defaults are assumed.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial

import numpy as np
import pandas as pd
from statsmodels.stats.proportion import proportion_confint

from contrafact import seeds
from contrafact.stats.power import COMPONENTS, crossed_power, t_power
from contrafact.study.schema import NUMBERS, PLACES, Hypothesis, Respondents, Study
from contrafact.survey import analysis, batch, design, exclusions, respondents

REPLICATIONS = 200
CURVE_REPLICATIONS = 40
"""Of each further point of the curve: enough to see where it bends, with an interval that says how well."""


@dataclass(frozen=True)
class Point:
    """Power of one hypothesis at one size, with Wilson's 95% Monte Carlo interval over ``replications``.

    ``ceiling`` is what endless participants would reach with these images, NaN where images do not vary in it or
    equivalence is tested. ``cost`` is pay and fee in the study's currency; ``excluded`` the mean share of participants
    left out.
    """

    hypothesis: str
    participants: int
    images: int
    power: float
    low: float
    high: float
    ceiling: float
    cost: float
    excluded: float
    replications: int


def assumed(study: Study, slope: float | None = None) -> Respondents:
    """The people of a rehearsal: those of the study file, or the schema's defaults; ``slope`` takes the place of theirs."""
    assert study.survey is not None
    people = respondents.in_world(study.survey.respondents or Respondents(), study.world)
    return people if slope is None else people.model_copy(update={"slope": slope})


def pictures(study: Study, images: int) -> pd.DataFrame:
    """Stimuli as they would be made of so many images, with what a reader would see: ``reading`` in SD."""
    directions = list(study.directions) or list(dict.fromkeys(h.direction for h in study.hypotheses))
    arms = ["treated", *(["sham"] if study.arms.sham else []), *(["placebo"] if study.arms.placebo else [])]
    rows = []
    for direction in directions:
        for image in range(images):
            name = f"image-{image:05d}"
            draw = seeds.integer(study.seed, "draw", name)
            draws = {"treated": 0, "sham": draw, "placebo": draw % max(study.arms.placebo, 1)}
            cells = [("null", 0, 0.0), *((arm, draws[arm], dose) for arm in arms for dose in study.doses.grid if dose)]
            rows += [(name, direction, *cell, f"{direction}/{name}") for cell in cells]
    table = pd.DataFrame(rows, columns=["image", "direction", "arm", "draw", "dose", "set_key"])
    reading = np.where(table["arm"] == "treated", table["dose"], 0.0)
    return table.assign(key=np.arange(len(table)), reading=reading)


def replicate(
    number: int, study: Study, people: Respondents, participants: int, images: int
) -> tuple[dict[str, bool], float]:
    """One rehearsal: the verdict of each hypothesis, and the share of participants that the frozen rules leave out."""
    assert study.survey is not None
    stimuli = pictures(study, images)
    trials = min(study.survey.trials_per_participant, design.different(stimuli, study.survey))
    survey = study.survey.model_copy(update={"participants": participants, "trials_per_participant": trials})
    lists = design.field_lists(stimuli, survey, study.seed + number)
    seen = stimuli.set_index("key")[["image", "reading"]]
    told = respondents.answer_all(lists, seen, survey.questions, people, study.seed, number)
    told = told.assign(list=told["participant"])[["list", "position", "question", "value", "response_ms"]]
    asked = batch.asked(lists.assign(assignment=lists["list"], participant=lists["list"]), survey.asked)
    asked = asked.merge(told, on=["list", "position", "question"], how="left", validate="one_to_one")
    text = asked["scale"] == "text"
    asked = asked.assign(free=asked["value"].where(text), value=pd.to_numeric(asked["value"].mask(text)))
    out = set(exclusions.excluded(asked)["participant"])
    given = asked[(asked["kind"] == "image") & asked["value"].notna()]
    about = stimuli.drop(columns="reading")

    def of_pictures(rows: pd.DataFrame) -> pd.DataFrame:
        rows = rows.drop(columns="stimulus").merge(about, left_on="picture", right_on="key")
        return rows.assign(excluded=rows["participant"].isin(out))

    ratings = given[given["scale"].isin(NUMBERS)]
    several = given[given["scale"].isin(PLACES)].assign(trial=lambda t: t["list"].astype(str) + "." + t["position"].astype(str))
    several = several.explode("shown").rename(columns={"shown": "picture"})
    several["place"] = several.groupby(["trial", "question"]).cumcount()
    several["chosen"] = several["value"] == several["place"] + 1
    table = analysis.evidence(of_pictures(ratings.assign(picture=ratings["stimulus"])), of_pictures(several))
    found = {s.id: s.verdict is True for s in analysis.statements(study, table, exploratory=False)}
    return found, len(out) / participants


def rehearse(
    study: Study,
    sizes: Sequence[tuple[int, int]],
    replications: Sequence[int],
    *,
    slope: float | None = None,
    processes: int = 1,
) -> Iterator[tuple[Point, ...]]:
    """For each size (participants, images), as it is done: one point for each hypothesis, the primary one first.

    Sizes share their random numbers, so that a curve is smoother than its intervals say. The same study gives the same
    points on any number of processes.
    """
    people = assumed(study, slope)
    ordered = sorted(study.hypotheses, key=lambda h: not h.primary)
    with ProcessPoolExecutor(processes) as pool:
        for (participants, images), n in zip(sizes, replications, strict=True):
            work = partial(replicate, study=study, people=people, participants=participants, images=images)
            found = list(pool.map(work, range(1, n + 1), chunksize=max(1, n // (4 * processes))))
            excluded = float(np.mean([share for _, share in found]))
            points = []
            for h in ordered:
                hits = sum(verdicts[h.id] for verdicts, _ in found)
                low, high = proportion_confint(hits, n, method="wilson")
                points.append(
                    Point(
                        h.id, participants, images, hits / n, float(low), float(high), ceiling(study, people, h, images),
                        cost(study, participants), excluded, n,
                    )
                )  # fmt: skip
            yield tuple(points)


def ceiling(study: Study, people: Respondents, hypothesis: Hypothesis, images: int) -> float:
    """Power with endless participants: then the images' own slopes alone are left to chance."""
    if hypothesis.test == "equivalence" or "treated" not in hypothesis.arm or images < 2:
        return math.nan
    if not people.image_slope_sd:
        return 1.0
    slope = true_slope(study, people, hypothesis.question)
    if math.isnan(slope):  # of choices: what pictures are worth has no ends and is not clipped
        slope = people.slope
    ncp = slope * math.sqrt(images) / people.image_slope_sd
    return t_power(ncp, images - 1, hypothesis.alpha, hypothesis.alternative)


def true_slope(study: Study, people: Respondents, question: str) -> float:
    """What the mean answer moves per SD of dose on 0 to 100, with lapses, ends of the scale and sleepers who stay in; NaN
    where the question is not one of numbers."""
    assert study.survey is not None
    if next(q.scale for q in study.survey.questions if q.name == question) not in NUMBERS:
        return math.nan
    doses = np.asarray(study.doses.grid)
    return respondents.expected_slope(doses[None], doses, people, attention=study.survey.attention_trials)


def cost(study: Study, participants: int) -> float:
    """Pay and the panel's fee for so many people, in the currency of the study."""
    assert study.survey is not None
    pay = study.survey.pay
    return round(participants * pay.minutes / 60 * pay.hourly * (1 + pay.fee_share), 2)


def closed_form(study: Study, people: Respondents, hypothesis: Hypothesis, participants: int, images: int) -> float:
    """Westfall, Kenny & Judd's power where the study is their fully crossed design of two conditions, else NaN.

    That is one direction with one dose beside 0, no control arm, a difference of the treated arm, and lists that show
    every stimulus to everybody. Clipping and lapses are not in the closed form.
    """
    survey, doses = study.survey, [dose for dose in study.doses.grid if dose]
    assert survey is not None
    directions = {h.direction for h in study.hypotheses} | set(study.directions)
    plain = len(doses) == 1 and not study.arms.sham and not study.arms.placebo and len(directions) == 1
    plain = plain and survey.design == "within_image"
    if not plain or hypothesis.test != "difference" or survey.trials_per_participant < 2 * images:
        return math.nan
    half = doses[0] / 2  # z goes from 0 to the dose: an intercept half way, a slope of half the difference
    variances = dict.fromkeys(COMPONENTS, 0.0) | {
        "participant": people.participant_sd**2 + (half * people.participant_slope_sd) ** 2,
        "image": people.image_sd**2 + (half * people.image_slope_sd) ** 2,
        "participant_slope": (half * people.participant_slope_sd) ** 2,
        "image_slope": (half * people.image_slope_sd) ** 2,
        "residual": people.noise_sd**2,
    }
    return crossed_power(
        "CCC", people.slope * doses[0], participants, images, variances,
        alpha=hypothesis.alpha, alternative=hypothesis.alternative,
    ).power  # fmt: skip

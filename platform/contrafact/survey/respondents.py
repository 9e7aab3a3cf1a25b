"""Simulated people, who see pixels alone and only through a reader that no model of the study shares.

What a respondent is handed is the reading of each picture, the mark of editing the reader saw, and which raw image
it goes back to. Dose, arm and direction never reach them. An attentive person p answers image i with reading z

    clip(50 + slope z + mark_slope m + a_p + b_p z + c_i + d_i z + e, 0, 100),

all effects independent normal; a share of answers are lapses, drawn uniformly; a share of people never look. At each
picture a person may leave for good, with the odds ``dropout / (1 - dropout) * exp(dropout_mark m)``.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy import special, stats

from contrafact import seeds
from contrafact.study.schema import NUMBERS, Question, Respondents, World
from contrafact.survey.batch import ATTENTION
from contrafact.survey.exclusions import ATTENTION_TOLERANCE, attention_limit

CENTRE = 50.0  # the answer to a picture with reading 0, rating points
STYLES = ("random", "straight", "fast")  # of people who do not look, in equal shares
SLEEPER_FAILS = 0.9  # chance that one who does not look fails an attention trial
TYPICAL_MS = 2400.0  # median time of an answer
FAST_MS = 170.0
WORDS = ("untidy", "plain", "ordinary", "neat", "well kept")  # free text, from the lowest answers to the highest

Floats = NDArray[np.float64]


def in_world(respondents: Respondents, world: World | None) -> Respondents:
    """The respondents a world calls for.

    In a ``null_rating`` world nobody's answer depends on the cause on average (people still differ); in an
    ``artefact`` world answers depend on the mark of editing alone.
    """
    if world is None or world.kind not in ("null_rating", "artefact"):
        return respondents
    if world.kind == "null_rating":
        return respondents.model_copy(update={"slope": 0.0, "mark_slope": 0.0})
    return respondents.model_copy(update={"slope": 0.0, "participant_slope_sd": 0.0, "image_slope_sd": 0.0})


def answer(
    lists: pd.DataFrame,
    pictures: pd.DataFrame,
    respondents: Respondents,
    seed: int,
    *,
    question: str = "question",
    replication: int = 0,
) -> pd.DataFrame:
    """The answers of one simulated person to each list, 0 to 100.

    ``lists`` as from ``design.make_lists``. ``pictures`` is indexed by stimulus and has the columns ``image`` (the raw
    image's key), ``reading`` (SD of the factor that is read) and optionally ``mark`` (SD); anything more is refused,
    so that nobody can tell them what they must not know. Effects of people and images depend on the seed, the
    question and the replication alone: the same pictures in other lists meet the same people. Who pays no attention
    is the same for all questions.

    Returns the lists' rows with ``participant`` (the list's number), ``value`` (0 to 100, one decimal) and
    ``response_ms``, both NaN from the picture on at which somebody left. Raises ValueError where a picture has no reading.
    """
    is_image = (lists["kind"] != "attention").to_numpy()
    reading, mark, image = _seen(pictures, lists["stimulus"], is_image, seed, replication, question)
    r = respondents

    mean = CENTRE + r.slope * reading + r.mark_slope * mark
    mean = mean + r.image_sd * image[:, 0] + r.image_slope_sd * image[:, 1] * reading

    value, response_ms = np.empty(len(lists)), np.empty(len(lists))
    target = lists["target"].to_numpy(float)
    for number, rows in lists.groupby("list", sort=True).indices.items():
        person = seeds.generator(seed, "respondents", replication, "participant", number)
        style = STYLES[int(person.integers(len(STYLES)))] if person.random() < r.inattentive else None
        own = seeds.generator(seed, "respondents", replication, question, "participant", number)
        intercept, tilt, pace = own.standard_normal(3) * (r.participant_sd, r.participant_slope_sd, 0.25)
        noise, haste = own.standard_normal((2, len(rows)))
        luck, wild = own.random((2, len(rows)))
        straight = round(float(own.uniform(0, 100)))

        looked = mean[rows] + intercept + tilt * reading[rows] + r.noise_sd * noise
        answers = np.where(luck < r.lapse, 100 * wild, np.clip(looked, 0, 100))
        if style is not None:
            answers = np.full(len(rows), float(straight)) if style == "straight" else 100 * wild
        fails = luck < (r.lapse if style is None else SLEEPER_FAILS)
        wrong = (target[rows] + 3 * ATTENTION_TOLERANCE + 40 * wild) % 100  # never within the tolerance
        value[rows] = np.where(is_image[rows], answers, np.where(fails, wrong, target[rows]))
        response_ms[rows] = (FAST_MS if style == "fast" else TYPICAL_MS) * np.exp(pace + 0.4 * haste)
        if r.dropout:
            chance = special.expit(special.logit(r.dropout) + r.dropout_mark * np.nan_to_num(mark[rows]))
            draws = seeds.generator(seed, "respondents", replication, "leaves", number).random(len(rows))
            gone = rows[np.cumsum(is_image[rows] & (draws < chance)) > 0]
            value[gone] = response_ms[gone] = np.nan

    answers_table = lists.assign(value=np.round(value, 1), response_ms=np.round(response_ms))
    return answers_table.rename(columns={"list": "participant"})


def _seen(
    pictures: pd.DataFrame, stimuli: pd.Series, is_image: NDArray[np.bool_], seed: int, replication: int, question: str
) -> tuple[Floats, Floats, Floats]:
    """What people see in each row's picture: reading and mark (n,), and two standard normal effects of its image (n, 2),
    0 where the row shows none."""
    if extra := set(pictures.columns) - {"image", "reading", "mark"}:
        raise ValueError(f"respondents see pixels only; they must not be told {sorted(extra)}")
    shown = pictures.reindex(stimuli)
    reading = shown["reading"].to_numpy(float)
    if not np.isfinite(reading[is_image]).all():
        raise ValueError("a picture that is shown has no reading")
    mark = shown["mark"].to_numpy(float) if "mark" in shown else np.zeros(len(shown))
    keys = sorted(pictures["image"].unique(), key=str)
    effects = {
        key: seeds.generator(seed, "respondents", replication, question, "image", key).standard_normal(2) for key in keys
    }
    image = [effects[key] if there else (0.0, 0.0) for key, there in zip(shown["image"], is_image, strict=True)]
    return reading, mark, np.array(image).reshape(-1, 2)


def on_scale(value: ArrayLike, scale: str) -> Floats:
    """Answers of 0 to 100 on the scale of a question: as they are, or the nearest of seven steps."""
    value = np.asarray(value, dtype=float)
    return np.round(1 + value * 6 / 100) if scale == "likert7" else value


def compare(
    trials: pd.DataFrame,
    pictures: pd.DataFrame,
    respondents: Respondents,
    seed: int,
    *,
    question: str = "question",
    replication: int = 0,
) -> pd.DataFrame:
    """Which of several pictures simulated people name: ``best`` and ``worst``, places from 1, one row a trial.

    ``trials`` has a row for each picture: ``list``, ``position``, ``place`` (from 0) and ``stimulus``; ``pictures`` as
    for ``answer``. A picture is worth what an attentive person would have answered to it alone, unclipped, each time
    with noise of its own; the one worth most is the best (Thurstone 1927). Who lapses or does not look names any
    places, or always the same.
    """
    r = respondents
    shown = trials.sort_values(["list", "position", "place"], kind="stable", ignore_index=True)
    every = np.ones(len(shown), dtype=bool)
    reading, mark, image = _seen(pictures, shown["stimulus"], every, seed, replication, question)
    worth = (r.slope + r.image_slope_sd * image[:, 1]) * reading + r.mark_slope * mark + r.image_sd * image[:, 0]
    found = []
    for number, rows in shown.groupby("list", sort=True).indices.items():
        person = seeds.generator(seed, "respondents", replication, "participant", number)
        style = STYLES[int(person.integers(len(STYLES)))] if person.random() < r.inattentive else None
        own = seeds.generator(seed, "respondents", replication, question, "compare", number)
        tilt, pace = own.standard_normal(2) * (r.participant_slope_sd, 0.25)
        felt = worth[rows] + tilt * reading[rows] + r.noise_sd * own.standard_normal(len(rows))
        ends = np.flatnonzero(np.diff(shown["position"].to_numpy()[rows], append=-1))
        for start, end in zip([0, *(ends[:-1] + 1)], ends + 1, strict=True):
            several = felt[start:end]
            luck, order = own.random(), own.permutation(len(several))
            best, worst = int(several.argmax()), int(several.argmin())
            if style == "straight":
                best, worst = 0, len(several) - 1
            elif style is not None or luck < r.lapse:
                best, worst = int(order[0]), int(order[-1])
            time = (FAST_MS if style == "fast" else TYPICAL_MS) * np.exp(pace + 0.4 * own.standard_normal())
            found.append((rows[start], best + 1, worst + 1, round(time), number))
    at, best_, worst_, times, people = zip(*found, strict=True)
    return shown.iloc[list(at)].drop(columns=["list", "place"]).assign(
        best=best_, worst=worst_, response_ms=np.array(times, dtype=float), participant=people
    )  # fmt: skip


def answer_all(
    trials: pd.DataFrame,
    pictures: pd.DataFrame,
    questions: Sequence[Question],
    respondents: Respondents,
    seed: int,
    replication: int = 0,
) -> pd.DataFrame:
    """Everything that simulated people answer to ``trials`` (``list``, ``position``, ``kind``, ``place``, ``stimulus``,
    ``target``; a row for each picture) until they leave: a row an answer, with ``question``, ``value`` (a number on the
    question's scale, a place, or a text), ``response_ms`` and ``participant``. Attention trials answer ``attention``."""
    first = trials[trials["place"] == 0]
    parts = []
    for number, question in enumerate(questions):
        told = answer(first, pictures, respondents, seed, question=question.name, replication=replication)
        told = told.dropna(subset=["value"])
        image = told["kind"] != "attention"
        if number == 0:
            parts.append(told[~image].assign(question=ATTENTION))
        told = told[image]
        if question.scale in NUMBERS:
            parts.append(told.assign(value=on_scale(told["value"], question.scale), question=question.name))
        elif question.scale == "text":
            parts.append(told.assign(value=words(told["value"]), question=question.name))
        else:
            several = trials.merge(told[["participant", "position"]].rename(columns={"participant": "list"}))
            named = compare(several, pictures, respondents, seed, question=question.name, replication=replication)
            for part, column in zip(question.parts(), ("best", "worst"), strict=False):
                parts.append(named.assign(value=named[column], question=part.name))
    return pd.concat([part.astype({"value": object}) for part in parts])


def words(answers: ArrayLike) -> list[str]:
    """Free text for answers from 0 to 100: the word of the fifth that each lies in."""
    fifth = np.clip(np.asarray(answers, dtype=float) // (100 / len(WORDS)), 0, len(WORDS) - 1)
    return [WORDS[int(each)] for each in fifth]


def expected_answer(
    reading: ArrayLike, respondents: Respondents, mark: ArrayLike = 0.0, scale: str = "vas"
) -> Floats:
    """The mean answer of attentive people, over persons, images and noise; any shape, in points of ``scale``.

    Closed form: the mean of a normal variable clipped at 0 and 100, or of the steps it falls into, mixed with uniform
    lapses.
    """
    r, z = respondents, np.asarray(reading, dtype=float)
    mean = CENTRE + r.slope * z + r.mark_slope * np.asarray(mark, dtype=float)
    variance = r.participant_sd**2 + r.image_sd**2 + r.noise_sd**2
    sd = np.sqrt(variance + (r.participant_slope_sd**2 + r.image_slope_sd**2) * z**2)
    sd = np.maximum(sd, 1e-9)
    if scale == "likert7":
        steps = (np.arange(6) + 0.5) * 100 / 6
        above = stats.norm.sf((steps - mean[..., None]) / sd[..., None]).sum(axis=-1)
        return np.asarray((1 - r.lapse) * (1 + above) + r.lapse * 4.0)
    low, high = (0 - mean) / sd, (100 - mean) / sd
    inner = mean * (stats.norm.cdf(high) - stats.norm.cdf(low)) + sd * (stats.norm.pdf(low) - stats.norm.pdf(high))
    clipped = inner + 100 * stats.norm.sf(high)
    return np.asarray((1 - r.lapse) * clipped + r.lapse * 50.0)


def sleepers_left(respondents: Respondents, attention: int) -> float:
    """Share of inattentive people among those whom the frozen exclusions leave in.

    Straight-liners and the fast are always found; who answers at random is found by failing more than half of the
    attention trials, and so, rarely, is an attentive person who lapses there.
    """
    pass_random = stats.binom.cdf(attention_limit(attention), attention, SLEEPER_FAILS) if attention else 1.0
    pass_attentive = stats.binom.cdf(attention_limit(attention), attention, respondents.lapse) if attention else 1.0
    sleepers = respondents.inattentive * pass_random * STYLES.count("random") / len(STYLES)
    awake = (1 - respondents.inattentive) * pass_attentive
    return float(sleepers / (sleepers + awake)) if sleepers + awake else float("nan")


def expected_slope(
    reading: ArrayLike, doses: ArrayLike, respondents: Respondents, *, attention: int = 2, mark: ArrayLike = 0.0,
    scale: str = "vas",
) -> float:
    """The true slope: what these people's answers change per SD of dose, in expectation, after exclusions.

    ``reading`` (n_images, n_doses) is what the reader sees in the images re-rendered at ``doses`` (n_doses,); images
    with a missing reading are left out. The slope is the least-squares coefficient of dose beside an intercept and,
    where the grid has both signs, the even component ``|dose|``, as in the analysis. Lapses, clipping and the
    inattentive who pass the exclusions are included exactly; false alarms of the speed and straight-line rules in
    attentive people (never seen) are not. The unit is points of ``scale``: those of 0 to 100 for ``vas``, steps of 1 to
    7 for ``likert7``. NaN where there is nothing to estimate from.
    """
    reading, doses = np.atleast_2d(np.asarray(reading, dtype=float)), np.asarray(doses, dtype=float)
    whole = np.isfinite(reading).all(axis=1)
    if not whole.any() or len(np.unique(doses)) < 2:
        return float("nan")
    mark = np.broadcast_to(np.asarray(mark, dtype=float), reading.shape)[whole]
    mean = expected_answer(reading[whole], respondents, mark, scale).mean(axis=0)
    columns = [np.ones_like(doses), doses]
    if doses.min() < 0 < doses.max() and len(np.unique(doses)) > 2:
        columns.append(np.abs(doses))
    slope = np.linalg.lstsq(np.column_stack(columns), mean, rcond=None)[0][1]
    return float((1 - sleepers_left(respondents, attention)) * slope)

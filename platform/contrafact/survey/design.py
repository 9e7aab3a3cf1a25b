"""Who sees which pictures, and in which order: balanced lists of every design.

What a trial shows at once is a presentation: one stimulus, or several of one matched set side by side. Lists are made
of presentations, and then each place of a trial (from 0) gets its stimulus.

Each list (one a participant) is drawn in two steps. First the images: those with the largest share of their
variants still to be shown come first, so that images are seen as few times as possible and equally often. Then
the variants: a minimum-cost matching of the list's images to cells (direction, arm, dose), restricted to variants
not yet shown in the current pass through all stimuli. With as many trials as images and equal cells every list
is one row of a random Latin square: the remaining bipartite graph stays regular, so a perfect matching exists to
the last row (König 1916).

Because no stimulus is shown again before all were shown, ratings per stimulus never differ by more than 1. Where the
study asks for `repeats`, some trials of each list are shown a second time, apart from all this, as trials of their own kind.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations, pairwise
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from contrafact import seeds
from contrafact.errors import UserError
from contrafact.study.schema import Survey, at_once

STIMULUS_COLUMNS = ("key", "image", "direction", "arm", "draw", "dose", "set_key")
CELL = ["direction", "arm", "dose"]
ATTENTION_TARGETS = (10, 20, 30, 40, 60, 70, 80, 90)  # on 0 to 100; the middle is where sleepers click
UNCHANGED = ("null", "raw")
_NEVER = 1e12  # cost of a variant that this list must not show
_SKIP = 1e6  # cost of passing over an image, a variant it lags behind: more than cells can ever cost

Ints = NDArray[np.int64]


def attention_target(seed: int, list_number: int, position: int) -> int:
    """The answer, 0 to 100, that the attention trial at this place of this list asks for."""
    return ATTENTION_TARGETS[seeds.integer(seed, "attention", list_number, position) % len(ATTENTION_TARGETS)]


def field_lists(stimuli: pd.DataFrame, survey: Survey, seed: int) -> pd.DataFrame:
    """The frozen lists of a study, whatever its design.

    ``stimuli`` as for ``make_lists``. Returns its columns with one row for each picture: ``place`` (from 0, left to
    right) tells the pictures of a trial apart. ``target`` is the answer asked for on attention trials and, in a
    ``guess``, the place (from 1) of the higher dose; ``kind`` is ``repeat`` where a trial is shown a second time. Lists
    of more participants begin with those of fewer.
    """
    n, trials, attention = survey.participants, survey.trials_per_participant, survey.attention_trials
    if survey.design == "between_arm":
        lists = _between_arms(stimuli, n, trials, attention, seed).assign(place=0)
    elif survey.design == "within_image":
        lists = make_lists(stimuli, n, trials, attention, seed).assign(place=0)
    else:
        shown = presentations(stimuli, survey)
        lists = make_lists(shown, n, trials, attention, seed)
        lists = _placed(lists, shown, guess=survey.design == "guess", shuffled=survey.design != "best_worst", seed=seed)
    return _repeated(lists, stimuli, survey.repeats, seed) if survey.repeats else lists


def _repeated(lists: pd.DataFrame, stimuli: pd.DataFrame, repeats: int, seed: int) -> pd.DataFrame:
    """``lists`` with ``repeats`` trials of each (half of its trials at most) shown again as they were, each half a list
    after the first time; trials whose image would come twice in a row are taken only where there are no others."""
    image_of = stimuli.set_index("key")["image"].to_dict()
    parts = []
    for number, own in lists.groupby("list", sort=True):
        first = own[(own["kind"] == "image") & (own["place"] == 0)]
        positions, images = first["position"].tolist(), [image_of[one] for one in first["stimulus"]]
        later = len(images) - len(images) // 2
        drawn = seeds.generator(seed, "repeats", number).permutation(len(images) // 2).tolist()
        drawn.sort(key=lambda k, later=later, images=images: images[k] in images[k + later : k + later + 2])
        behind = {positions[k]: positions[k + later] + 0.5 for k in drawn[:repeats]}
        again = own[own["position"].isin(behind)]
        both = pd.concat([own, again.assign(kind="repeat", position=again["position"].map(behind))])
        parts.append(both.assign(position=both["position"].rank(method="dense").astype("int64") - 1))
    return pd.concat(parts).sort_values(["list", "position", "place"], kind="stable", ignore_index=True)


def different(stimuli: pd.DataFrame, survey: Survey) -> int:
    """How many different trials of these stimuli one list can show."""
    if survey.design == "within_image":
        return len(stimuli)
    if survey.design == "between_arm":
        sizes = stimuli.groupby("arm").size()
        arms = sizes.drop("null", errors="ignore")
        return int(arms.min() + sizes.get("null", 0)) if len(arms) > 1 else int(sizes.min())
    return len(presentations(stimuli, survey))


def presentations(stimuli: pd.DataFrame, survey: Survey) -> pd.DataFrame:
    """What a trial of several pictures can show: ``STIMULUS_COLUMNS`` for the list maker, and ``shown``, stimulus keys.

    ``pairs``: two stimuli of a matched set, of the arms that ``survey.compare`` names (absent: every two arms of the
    set), at one dose, or one of them unchanged; of one arm, a dose and its mirror image (where there is none, every
    two doses). ``guess``: the same within the treated arm, the higher dose second. ``best_worst``: ``survey.set_size``
    variants of a set, in blocks that show each variant once at each place and every two as evenly together as a
    cyclic design does (John & Williams 1995, chapter 4). Raises UserError where a set cannot make one.
    """
    rows: list[tuple[object, ...]] = []
    ordered = stimuli.sort_values(["image", "direction", "arm", "draw", "dose"], kind="stable")
    for name, own in ordered.groupby("set_key", sort=True):
        image, direction = own["image"].iloc[0], own["direction"].iloc[0]
        if survey.design == "best_worst":
            made = [("set", float(number), 0, keys) for number, keys in enumerate(_blocks(own, at_once(survey.design, survey.set_size)))]
        else:
            made = list(_pairs(own, survey))
        if not made:
            raise UserError(
                f"The matched set '{name}' has no two pictures that the design '{survey.design}' sets against each other.",
                hint="See survey.compare, and the arms and doses of the set.",
            )
        rows += [(image, direction, arm, draw, dose, name, keys) for arm, dose, draw, keys in made]
    table = pd.DataFrame(rows, columns=[*STIMULUS_COLUMNS[1:], "shown"])
    return table.assign(key=np.arange(len(table)))


def _pairs(own: pd.DataFrame, survey: Survey) -> Iterator[tuple[str, float, int, tuple[object, object]]]:
    arms = list(dict.fromkeys(own["arm"]))
    wanted = list(survey.compare)
    if survey.design == "guess":
        wanted = [("treated", "treated")]
    elif not wanted:
        wanted = [pair for pair in combinations(arms, 2) if set(pair) != set(UNCHANGED)] or [("treated", "treated")]
    unchanged = own[own["arm"].isin(UNCHANGED)]
    for first, second in wanted:
        if first == second:
            rows = own[own["arm"] == first]
            pairs = [(a, b) for a, b in _twos(rows, rows) if a.dose == -b.dose and a.dose < 0]
            if not pairs:  # the unchanged picture stands for dose 0
                rows = pd.concat([rows, unchanged[:1]]).sort_values("dose", kind="stable")
                pairs = [(a, b) for a, b in _twos(rows, rows) if a.dose < b.dose]
        else:
            pairs = [
                (a, b)
                for a, b in _twos(own[own["arm"] == first], own[own["arm"] == second])
                if a.dose == b.dose or first in UNCHANGED or second in UNCHANGED
            ]
        for a, b in pairs:
            dose = b.dose if b.dose or second not in UNCHANGED else a.dose
            yield f"{first}/{second}", float(dose), max(int(a.draw), int(b.draw)), (a.key, b.key)


def _twos(first: pd.DataFrame, second: pd.DataFrame) -> Iterator[tuple[Any, Any]]:
    return ((a, b) for a in first.itertuples() for b in second.itertuples())


def _blocks(own: pd.DataFrame, size: int) -> list[tuple[object, ...]]:
    keys = own["key"].tolist()
    n = len(keys)
    if n < size:
        raise UserError(
            f"The matched set '{own['set_key'].iloc[0]}' has {n} pictures, and survey.set_size asks for {size} at once.",
            hint=f"Set it to {max(n, 3)} or fewer.",
        )
    offsets = [0]

    def unevenness(one: int) -> tuple[int, int]:
        """How unevenly the distances between offsets, and so the meetings of two variants, would occur with this one."""
        met = Counter(min((b - a) % n, (a - b) % n) for a, b in combinations([*offsets, one], 2))
        return sum(times * times for times in met.values()), one

    while len(offsets) < size:
        offsets.append(min((step for step in range(1, n) if step not in offsets), key=unevenness))
    return [tuple(keys[(start + o) % n] for o in offsets) for start in range(n)]


def _placed(lists: pd.DataFrame, shown: pd.DataFrame, *, guess: bool, shuffled: bool, seed: int) -> pd.DataFrame:
    """Each trial's pictures at their places.

    Within a list each kind of pair has its first picture on the left in half of its trials (to within one); which half,
    is decided by how often each pair stood which way round before.
    """
    pictures, kinds = shown["shown"].tolist(), shown["arm"].tolist()
    left: Counter[int] = Counter()
    rows: list[tuple[int, int, str, int, object, float]] = []
    for number, own in lists.groupby("list", sort=True):
        turned: set[int] = set()
        if shuffled:
            rng = seeds.generator(seed, "sides", number)
            by_kind: dict[str, list[int]] = {}
            for one in rng.permutation(own["stimulus"].dropna().astype(int).to_numpy()):
                by_kind.setdefault(kinds[one], []).append(int(one))
            for kind in sorted(by_kind):
                half = (len(by_kind[kind]) + int(rng.integers(2))) // 2
                turned |= set(sorted(by_kind[kind], key=lambda one: -left[one])[:half])
        each: list[Any] = list(own.itertuples())
        for row in each:
            if row.kind != "image":
                rows.append((row.list, row.position, row.kind, 0, None, row.target))
                continue
            key = int(row.stimulus)
            keys = pictures[key][::-1] if key in turned else pictures[key]
            left[key] += -1 if key in turned else 1
            target = (1.0 if key in turned else 2.0) if guess else np.nan
            rows += [(row.list, row.position, row.kind, place, one, target) for place, one in enumerate(keys)]
    return pd.DataFrame(rows, columns=["list", "position", "kind", "place", "stimulus", "target"])


def _between_arms(stimuli: pd.DataFrame, participants: int, trials: int, attention: int, seed: int) -> pd.DataFrame:
    """Lists of one arm each, and of its dose 0. Of every so many lists in a row each arm has one, in random order."""
    arms = sorted(set(stimuli["arm"]) - {"null"})
    base = stimuli[stimuli["arm"] == "null"]
    if len(arms) == 1:
        arms, base = sorted(set(stimuli["arm"])), stimuli[:0]
    if len(arms) < 2:
        raise UserError("The design between_arm needs two arms at least.", hint="See `arms`, or the stimuli's manifest.")
    rounds = -(-participants // len(arms))
    turns = np.concatenate([seeds.generator(seed, "arms", k).permutation(len(arms)) for k in range(rounds)])[:participants]
    parts = []
    for number, arm in enumerate(arms):
        own = np.flatnonzero(turns == number)
        if len(own):
            pool = pd.concat([stimuli[stimuli["arm"] == arm], base])
            lists = make_lists(pool, len(own), trials, attention, seeds.integer(seed, "arm", arm))
            parts.append(lists.assign(list=own[lists["list"].to_numpy()]))
    return pd.concat(parts).sort_values(["list", "position"], kind="stable", ignore_index=True)


def make_lists(stimuli: pd.DataFrame, participants: int, trials: int, attention: int, seed: int) -> pd.DataFrame:
    """Frozen lists of a within-image design.

    ``stimuli`` has the columns ``STIMULUS_COLUMNS``, one row a stimulus. Each of the ``participants`` lists has
    ``trials`` pictures and ``attention`` further trials that show none, spread out and never first.

    Returns ``list`` and ``position`` (both from 0), ``kind`` (``image`` or ``attention``), ``stimulus`` (a key, None
    on attention trials) and ``target`` (the answer asked for, NaN on image trials). The same stimuli in any order
    give the same lists. Raises UserError where a list would have to show a stimulus twice.
    """
    missing = [name for name in STIMULUS_COLUMNS if name not in stimuli]
    if missing:
        raise ValueError(f"stimuli lack the columns {missing}")
    if stimuli["key"].duplicated().any():
        raise ValueError("stimulus keys must be unique")
    if stimuli.empty:
        raise UserError("There is no stimulus to show.", hint="See the gate's counts: `contrafact status`.")
    if trials > len(stimuli):
        raise UserError(
            f"survey.trials_per_participant is {trials}, but there are only {len(stimuli)} different trials to show.",
            hint=f"Set it to {len(stimuli)} or fewer, or edit more images (arms.images).",
        )
    pool = _Pool(stimuli.sort_values(["image", "direction", "arm", "draw", "dose"], kind="stable"), trials)
    keys = pool.keys
    rows: list[tuple[int, int, str, object, float]] = []
    for number in range(participants):
        rng = seeds.generator(seed, "list", number)
        order = _apart(pool.next_list(rng), pool.image_of, rng)
        pauses = _pauses(trials, attention, rng)
        position = 0
        for place, stimulus in enumerate(order):
            for _ in range(pauses[place]):
                rows.append((number, position, "attention", None, attention_target(seed, number, position)))
                position += 1
            rows.append((number, position, "image", keys[stimulus], np.nan))
            position += 1
    return pd.DataFrame(rows, columns=["list", "position", "kind", "stimulus", "target"])


class _Pool:
    """The stimuli and which of them the current pass has still to show."""

    def __init__(self, stimuli: pd.DataFrame, trials: int) -> None:
        self.trials = trials
        self.keys: list[object] = stimuli["key"].tolist()
        self.image_of: Ints = pd.factorize(stimuli["image"])[0].astype(np.int64)
        cells = stimuli.groupby(CELL, sort=True, dropna=False)
        self.cell_of = np.asarray(cells.ngroup(), dtype=np.int64)
        table = cells.size().reset_index(name="n")
        self.share = table["n"].to_numpy(float) / len(stimuli)
        self.doses = table["dose"].to_numpy(float)
        self.arms = [np.flatnonzero(table["arm"] == arm) for arm in table["arm"].unique()]
        self.members = [np.flatnonzero(self.image_of == image) for image in range(self.image_of.max() + 1)]
        self.sizes: Ints = np.bincount(self.image_of).astype(np.int64)
        self.pending = np.ones(len(self.keys), dtype=bool)

    def next_list(self, rng: np.random.Generator) -> list[int]:
        """Row numbers of the next list's stimuli, unordered."""
        taken = np.zeros(len(self.keys), dtype=bool)
        wanted = self.trials
        if wanted >= (left := int(self.pending.sum())):
            taken |= self.pending
            wanted -= left
            self.pending[:] = True
        quota = self._quota(taken, rng)
        while wanted:
            free = self.pending & ~taken
            images, skip_cost = self._images(free, taken, wanted, rng)
            chosen = self._match(images, skip_cost, wanted, free, quota - self._cells(taken), rng)
            taken[chosen] = True
            self.pending[chosen] = False
            wanted -= len(chosen)
        return np.flatnonzero(taken).tolist()

    def _cells(self, stimuli: NDArray[np.bool_]) -> Ints:
        return np.bincount(self.cell_of[stimuli], minlength=len(self.share))

    def _quota(self, taken: NDArray[np.bool_], rng: np.random.Generator) -> Ints:
        """How often a list should show each cell, by systematic sampling (Madow 1949) from what is pending.

        Cells that the pass has shown less get more, so that its last lists are not left with one arm.
        """
        pending = self._cells(self.pending)
        already = self._cells(taken)
        ask = np.maximum(pending / pending.sum() * self.trials - already, 0)
        ask *= (self.trials - already.sum()) / max(ask.sum(), 1e-9)
        # An arm's cells stay together, which gives each arm what it asks to within one trial.
        arms = [self.arms[k] for k in rng.permutation(len(self.arms))]
        order = np.concatenate([arm[_rotated(self.doses[arm], rng)] for arm in arms])
        ends = np.floor(np.round(np.cumsum(ask[order]), 9) + rng.random())
        quota = already.copy()
        quota[order] += np.diff(ends, prepend=0.0).astype(np.int64)
        return quota

    def _images(
        self, free: NDArray[np.bool_], taken: NDArray[np.bool_], wanted: int, rng: np.random.Generator
    ) -> tuple[Ints, NDArray[np.float64]]:
        """The images next in turn, each once, and what skipping each costs (in variants it lags behind).

        In turn is who has the largest share still to be shown, then who was seen least in this list. Twice as many
        as wanted are given where there are, so that among images of equal standing the matching decides.
        """
        images = len(self.sizes)
        capacity = np.bincount(self.image_of[free], minlength=images)
        pending = np.bincount(self.image_of[self.pending], minlength=images)
        seen = np.bincount(self.image_of[taken], minlength=images)
        share, ties = pending / self.sizes, rng.random(images)
        heap = [(-share[k], seen[k], ties[k], k) for k in np.flatnonzero(capacity).tolist()]
        heapq.heapify(heap)
        turn: list[int] = []
        while heap and len(turn) < 2 * wanted:
            _, times, tie, image = heapq.heappop(heap)
            if image in turn:  # its second turn: that is the next round's business
                break
            turn.append(image)
            if len(turn) <= wanted and capacity[image] > 1:
                heapq.heappush(heap, (-(pending[image] - 1) / self.sizes[image], times + 1, tie, image))
        chosen = np.array(turn, dtype=np.int64)
        return chosen, share[chosen] * self.sizes.mean() - 100.0 * seen[chosen]

    def _match(
        self,
        images: Ints,
        skip_cost: NDArray[np.float64],
        wanted: int,
        free: NDArray[np.bool_],
        quota: Ints,
        rng: np.random.Generator,
    ) -> Ints:
        """One free stimulus of each of at most ``wanted`` images; cells exceed their quota as little as possible."""
        n = len(images)
        ties = rng.random((n, len(quota)))
        available = np.zeros(ties.shape, dtype=bool)
        pick = np.zeros(ties.shape, dtype=np.int64)
        for row, image in enumerate(images):
            members = rng.permutation(self.members[image])
            members = members[free[members]]
            available[row, self.cell_of[members]] = True
            pick[row, self.cell_of[members]] = members
        copies = available.sum(0)
        column_cell = np.repeat(np.arange(len(quota)), copies)
        copy = np.arange(len(column_cell)) - np.repeat(np.cumsum(copies) - copies, copies)
        excess = np.maximum(copy + 1 - quota[column_cell], 0)
        cost = np.where(available, ties, _NEVER)[:, column_cell] + n * excess**2
        # Every skip column is used, and by those who cost least to skip, before cells are looked at.
        skips = np.repeat(_SKIP * skip_cost[:, None] - _NEVER, max(n - wanted, 0), axis=1)
        rows, columns = linear_sum_assignment(np.hstack([cost, skips]))
        shown = columns < len(column_cell)
        return pick[rows[shown], column_cell[columns[shown]]]


def _rotated(doses: NDArray[np.float64], rng: np.random.Generator) -> Ints:
    """Cells of one arm in order of dose, begun at a random one."""
    return np.roll(np.argsort(doses, kind="stable"), int(rng.integers(len(doses))))


def _apart(stimuli: Sequence[int], image_of: Ints, rng: np.random.Generator) -> list[int]:
    """A random order with no image twice in a row, wherever the counts allow one."""
    rest = [stimuli[k] for k in rng.permutation(len(stimuli))]
    left = Counter(int(image_of[s]) for s in rest)
    order: list[int] = []
    last = -1
    while rest:
        commonest = max(left, key=left.__getitem__)
        allowed = left.keys() - {last} or left.keys()
        if 2 * left[commonest] > len(rest) and commonest != last:  # any other choice leaves this image with itself
            allowed = {commonest}
        place = next(k for k, s in enumerate(rest) if int(image_of[s]) in allowed)
        stimulus = rest.pop(place)
        last = int(image_of[stimulus])
        left[last] -= 1
        if not left[last]:
            del left[last]
        order.append(stimulus)
    return order


def _pauses(trials: int, attention: int, rng: np.random.Generator) -> Counter[int]:
    """Before which picture (1 to trials - 1) attention trials stand: one in each of equal stretches."""
    edges = np.linspace(1, trials, attention + 1)
    return Counter(min(int(rng.uniform(low, high)), trials - 1) for low, high in pairwise(edges))


@dataclass(frozen=True)
class Balance:
    """How even the lists are. ``spread`` is the largest minus the smallest count.

    ``stimulus_spread`` over stimuli in all; ``image_spread``, ``arm_spread`` and ``cell_spread`` the worst within one
    list, arms and cells counted against their share of the stimuli; ``repeated`` stimuli shown twice in one list;
    ``in_a_row`` neighbours with the same image.
    """

    participants: int
    ratings: int
    stimulus_low: int
    stimulus_high: int
    image_spread: int
    arm_spread: float
    cell_spread: float
    repeated: int
    in_a_row: int

    @property
    def stimulus_spread(self) -> int:
        return self.stimulus_high - self.stimulus_low


def balance(lists: pd.DataFrame, stimuli: pd.DataFrame) -> Balance:
    """The report on lists made by ``make_lists`` from these stimuli."""
    shown = lists[lists["kind"] == "image"].merge(stimuli, left_on="stimulus", right_on="key", validate="many_to_one")
    shown = shown.sort_values(["list", "position"])
    counts = shown["stimulus"].value_counts().reindex(stimuli["key"], fill_value=0)
    by_image = pd.crosstab(shown["list"], shown["image"]).reindex(columns=stimuli["image"].unique(), fill_value=0)
    neighbours = (shown["image"] == shown["image"].shift()) & (shown["list"] == shown["list"].shift())
    return Balance(
        participants=int(shown["list"].nunique()),
        ratings=len(shown),
        stimulus_low=int(counts.min()),
        stimulus_high=int(counts.max()),
        image_spread=int((by_image.max(axis=1) - by_image.min(axis=1)).max()),
        arm_spread=_off_share(shown, stimuli, ["arm"]),
        cell_spread=_off_share(shown, stimuli, CELL),
        repeated=int(shown.duplicated(["list", "stimulus"]).sum()),
        in_a_row=int(neighbours.sum()),
    )


def _off_share(shown: pd.DataFrame, stimuli: pd.DataFrame, by: list[str]) -> float:
    """Largest distance, in trials, of a list's count from what its length times the share of stimuli asks."""
    share = stimuli.groupby(by).size() / len(stimuli)
    seen = shown.groupby(["list", *by]).size().unstack(by, fill_value=0)
    seen = seen.reindex(columns=share.index, fill_value=0)
    expected = np.outer(seen.sum(axis=1), share)
    return float(np.abs(seen.to_numpy() - expected).max())

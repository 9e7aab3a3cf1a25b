"""Figures as SVG without a script, an outside font or a date: the same numbers give the same bytes."""

from __future__ import annotations

import io
import math
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import matplotlib as mpl
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas

from contrafact.stats.statement import Statement

STYLE: Mapping[str, tuple[str, str, str]] = {  # colour (4.5:1 on white), marker, line: any one of them is enough
    "treated": ("#1a5494", "o", "-"),
    "sham": ("#a34a00", "s", "--"),
    "placebo": ("#5a5a5a", "^", ":"),
    "treated-sham": ("#1a1a1a", "D", "-"),
    "treated-placebo": ("#1a1a1a", "v", "-"),
}
NAMES = {
    "treated": "treated", "sham": "sham", "placebo": "placebo", "null": "dose 0",
    "treated-sham": "treated minus sham", "treated-placebo": "treated minus placebo",
}  # fmt: skip


@dataclass(frozen=True)
class Figure:
    """A picture with the words for those who do not see it; ``alt`` says what is seen, not what it is. ``png`` is the same
    at 200 dots an inch."""

    svg: str
    png: bytes
    alt: str
    caption: str


def number(value: float | None, digits: int = 2) -> str:
    """A number for people: a true minus sign, and "not estimable" for what is undefined."""
    if value is None or not math.isfinite(value):
        return "not estimable"
    text = f"{value:.{digits}f}"
    return text.replace("-", "\N{MINUS SIGN}") if float(text) else f"{0:.{digits}f}"


def dose_response(means: pd.DataFrame, question: str, direction: str, what: str = "mean rating") -> Figure:
    """Mean answer by dose for each arm, ``what`` says of which kind; ``means`` as from ``stats.dose.by_dose``."""
    digits = 1 if what == "mean rating" else 2
    canvas, axes = _canvas(6.4, 4.0)
    null = means[means["arm"] == "null"]
    said = []
    arms = [arm for arm in ("treated", "sham", "placebo") if (means["arm"] == arm).any()]
    for place, arm in enumerate(arms):
        colour, marker, line = STYLE[arm]
        rows = pd.concat([means[means["arm"] == arm], null]).sort_values("dose")
        shift = 0.02 * (place - (len(arms) - 1) / 2) * max(float(means["dose"].abs().max()), 0.1)
        own = rows[rows["arm"] == arm]
        axes.plot(rows["dose"] + shift, rows["mean"], color=colour, linestyle=line, linewidth=1.6)
        axes.errorbar(
            own["dose"] + shift, own["mean"], yerr=[own["mean"] - own["low"], own["high"] - own["mean"]], color=colour,
            marker=marker, linestyle="none", capsize=3, markersize=6, label=NAMES[arm],
        )  # fmt: skip
        first, last = rows.iloc[0], rows.iloc[-1]
        said.append(
            f"{NAMES[arm]} goes from {number(first['mean'], digits)} at dose {number(first['dose'])} "
            f"to {number(last['mean'], digits)} at dose {number(last['dose'])}"
        )
    if len(null):
        row = null.iloc[0]
        axes.errorbar(
            [0], [row["mean"]], yerr=[[row["mean"] - row["low"]], [row["high"] - row["mean"]]], color="#1a1a1a",
            marker="D", markersize=6, linestyle="none", capsize=3, label="dose 0, shared",
        )  # fmt: skip
    axes.set_xlabel("requested dose (SD of the outcome score)")
    axes.set_ylabel(textwrap.fill(f"{what}, “{question}”", 44))
    axes.legend(frameon=False)
    return Figure(
        _svg(canvas),
        _png(canvas),
        f"Line chart of {'mean ratings' if what == 'mean rating' else what} by dose: {'; '.join(said)}.",
        f"{what.capitalize()} of “{question}” by requested dose of “{direction}”. Bars are 95% intervals clustered by "
        "participants and images, with the levels of both taken out; dose 0 belongs to every arm.",
    )


def components(statements: Sequence[Statement]) -> Figure:
    """Odd (slope) and even (mark) component of each arm and contrast, with its interval, side by side."""
    canvas = Canvas(figsize=(7.2, 0.8 + 0.36 * len({s.arm for s in statements})), layout="constrained")
    left, right = canvas.subplots(1, 2, sharey=True, sharex=True)
    arms = [arm for arm in NAMES if any(s.arm == arm for s in statements)]
    said = []
    for axes, component, title in ((left, "odd", "odd: slope on the dose"), (right, "even", "even: mark of editing")):
        _plain(axes)
        axes.set_title(title, fontsize=10, loc="left")
        axes.axvline(0, color="#767676", linewidth=0.8)
        for statement in statements:
            if statement.component != component:
                continue
            y = len(arms) - 1 - arms.index(statement.arm)
            said.append(
                f"{component} component of {NAMES[statement.arm]} {number(statement.estimate)}"
                + (f" ({number(statement.low)} to {number(statement.high)})" if math.isfinite(statement.low) else "")
            )
            if math.isfinite(statement.estimate):
                colour, marker, _ = STYLE[statement.arm]
                axes.plot([statement.low, statement.high], [y, y], color=colour, linewidth=1.8)
                axes.plot([statement.estimate], [y], color=colour, marker=marker, markersize=6)
            else:
                axes.text(0, y, " not estimable", va="center", fontsize=8)
        axes.set_yticks(range(len(arms)), [NAMES[arm] for arm in reversed(arms)])
        axes.set_ylim(-0.6, len(arms) - 0.4)
    canvas.supxlabel(statements[0].unit.replace("absolute ", ""), fontsize=9)
    return Figure(
        _svg(canvas),
        _png(canvas),
        f"Dot chart with intervals: {'; '.join(said)}.",
        "Odd and even components with the interval of each statement. What a dose does shows in the odd component; what "
        "plus and minus share, such as a trace of editing, shows in the even one.",
    )


def judge_by_dose(rows: pd.DataFrame, direction: str) -> Figure:
    """What the judge reads at each requested dose: ``arm``, ``dose``, ``judge`` (SD, change from dose 0)."""
    canvas, axes = _canvas(4.6, 3.4)
    doses = sorted(rows["dose"].unique())
    axes.plot(doses, doses, color="#767676", linewidth=0.8, label="as requested")
    said = []
    for arm in (arm for arm in ("treated", "sham", "placebo") if (rows["arm"] == arm).any()):
        own = rows[rows["arm"] == arm].sort_values("dose").astype({"judge": float})
        colour, marker, line = STYLE[arm]
        axes.plot(own["dose"], own["judge"], color=colour, marker=marker, linestyle=line, label=NAMES[arm])
        read = ", ".join(f"{number(d)} gives {number(j)}" for d, j in zip(own["dose"], own["judge"], strict=True))
        said.append(f"{NAMES[arm]}: {read}")
    axes.set_xlabel("requested dose (SD)")
    axes.set_ylabel("judge's reading (SD)")
    axes.legend(frameon=False)
    return Figure(
        _svg(canvas),
        _png(canvas),
        f"Line chart of the judge's reading by requested dose. {'; '.join(said)}.",
        f"What the independent judge reads in the edited images of “{direction}”, as a change from dose 0. The judge "
        "never steers an edit.",
    )


def _canvas(width: float, height: float) -> tuple[Canvas, Axes]:
    canvas = Canvas(figsize=(width, height), layout="constrained")
    axes = canvas.subplots()
    _plain(axes)
    return canvas, axes


def _plain(axes: Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color="#e4e4e4", linewidth=0.6)
    axes.set_axisbelow(True)


def _png(canvas: Canvas) -> bytes:
    target = io.BytesIO()
    canvas.savefig(target, format="png", dpi=200, metadata={"Software": None})
    return target.getvalue()


def _svg(canvas: Canvas) -> str:
    target = io.StringIO()
    with mpl.rc_context({"svg.hashsalt": "contrafact", "svg.fonttype": "path"}):
        canvas.savefig(target, format="svg", metadata={"Date": None, "Creator": None})
    return target.getvalue()

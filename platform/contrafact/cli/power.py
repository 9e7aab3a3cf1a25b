"""``contrafact power``: what a study can find, before any money is spent."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from contrafact.cli.output import Json, answer, table, working

if TYPE_CHECKING:
    from contrafact.study import Study
    from contrafact.survey.rehearse import Point


def register(app: typer.Typer) -> None:
    @app.command()
    def power(
        file: Annotated[
            Path | None, typer.Argument(metavar="[FILE]", help="The study file; none with --design.")
        ] = None,
        slope: Annotated[
            float | None, typer.Option(help="The effect to find, rating points per SD of dose; else the study's respondents'.")
        ] = None,
        participants: Annotated[
            str | None, typer.Option(metavar="N,N,...", help="Sizes of the curve; else half, whole and twice the study's.")
        ] = None,
        images: Annotated[str | None, typer.Option(metavar="N,N,...", help="As --participants, of images.")] = None,
        target: Annotated[float, typer.Option(help="Power that the cheapest design must reach.")] = 0.8,
        replications: Annotated[
            int | None, typer.Option(help="Simulated studies at the planned size (200), a fifth of it elsewhere.")
        ] = None,
        processes: Annotated[int, typer.Option(help="Simulated studies at once.")] = 2,
        design: Annotated[
            str | None, typer.Option(help="Closed form of a two-condition design instead: CCC, CNC, NCC, NNC, ...")
        ] = None,
        difference: Annotated[
            float | None, typer.Option(help="With --design: difference of the condition means; d where variances sum to 1.")
        ] = None,
        variance: Annotated[
            list[str] | None, typer.Option(metavar="NAME=V", help="With --design: a variance, repeatable; the others are 0.")
        ] = None,
        as_json: Json = False,
    ) -> None:
        """Power, its ceiling and the cheapest sufficient design, by simulation of the study or in closed form."""
        from contrafact.errors import UserError

        if not 0 < target < 1:
            raise UserError(f"--target is {target:g}; power lies between 0 and 1.")
        if not 1 <= processes <= 256:
            raise UserError(f"--processes is {processes}; allowed are 1 to 256.")
        if replications is not None and not 10 <= replications <= 100_000:
            raise UserError(f"--replications is {replications}; allowed are 10 to 100000.")
        if (file is None) == (design is None):
            raise UserError("Give either a study file or --design.", hint="contrafact power studies/demo.yaml")
        people = _sizes("--participants", participants)
        pictures = _sizes("--images", images)
        if design is not None:
            _closed(design, difference, variance or [], people, pictures, target, as_json)
        else:
            assert file is not None
            _simulated(file, slope, people, pictures, target, replications, processes, as_json)


def _sizes(option: str, text: str | None) -> list[int]:
    from contrafact.errors import UserError

    if text is None:
        return []
    try:
        found = sorted({int(word) for word in text.split(",")})
    except ValueError:
        raise UserError(f"{option} is '{text}'; whole numbers with commas between are wanted, such as 40,60,80.") from None
    if not found or found[0] < 2 or found[-1] > 100_000 or len(found) > 20:
        raise UserError(f"{option} is '{text}'; allowed are at most 20 numbers from 2 to 100000.")
    return found


def _closed(
    design: str, difference: float | None, pairs: list[str], people: list[int], pictures: list[int], target: float,
    as_json: bool,
) -> None:  # fmt: skip
    from contrafact.errors import UserError
    from contrafact.stats.power import COMPONENTS, crossed_power

    if difference is None or not people or not pictures:
        raise UserError("--design needs --difference, --participants and --images.")
    variances = dict.fromkeys(COMPONENTS, 0.0) if pairs else dict(COMPONENTS)
    for pair in pairs:
        name, _, value = pair.partition("=")
        try:
            variances[name] = float(value)
        except ValueError:
            raise UserError(f"--variance is '{pair}'; wanted is a name and a number, such as residual=0.3.") from None
    try:
        found = [
            (p, q, crossed_power(design, difference, p, q, variances))  # type: ignore[arg-type]
            for q in pictures
            for p in people
        ]
    except ValueError as error:
        raise UserError(f"{str(error)[:1].upper()}{str(error)[1:]}.") from None
    rows = [
        {"participants": p, "images": q, "power": one.power, "ncp": one.ncp, "df": one.df, "ceiling": one.ceiling}
        for p, q, one in found
    ]
    answer(
        {"design": design, "difference": difference, "variances": variances, "target": target, "points": rows},
        as_json=as_json,
        text=table(
            ("participants", "images", "power", "ceiling"),
            [(p, q, f"{one.power:.3f}", f"{one.ceiling:.3f}") for p, q, one in found],
        ),
    )


def _simulated(
    file: Path, slope: float | None, people: list[int], pictures: list[int], target: float, replications: int | None,
    processes: int, as_json: bool,
) -> None:  # fmt: skip
    import time
    from dataclasses import asdict

    from contrafact import settings, study
    from contrafact.errors import UserError
    from contrafact.survey import rehearse

    loaded = study.load(file, data=settings.read().data)
    plan = loaded.study
    if plan.survey is None or not plan.hypotheses:
        raise UserError(f"{file}: power needs a `survey` and `hypotheses`.", hint="Add them to the study.")
    planned = (plan.survey.participants, plan.arms.images)
    halves = [[max(5, n // 2), n, 2 * n] for n in planned]
    grid = [(p, q) for q in pictures or halves[1] for p in people or halves[0]]
    sizes = [planned, *(size for size in grid if size != planned)]
    n = replications or rehearse.REPLICATIONS
    counts = [n, *[max(10, n * rehearse.CURVE_REPLICATIONS // rehearse.REPLICATIONS)] * (len(sizes) - 1)]
    began = time.perf_counter()
    points: list[Point] = []
    with working(as_json=as_json) as progress:
        run = rehearse.rehearse(plan, sizes, counts, slope=slope, processes=processes)
        for several in progress(run, len(sizes), "sizes"):
            points += several
    primary = points[0].hypothesis
    curve = sorted((p for p in points if p.hypothesis == primary), key=lambda p: (p.images, p.participants))
    enough = [p for p in curve if p.power >= target]
    cheapest = min(enough, key=lambda p: (p.cost, p.images), default=None)
    assumed = rehearse.assumed(plan, slope)
    first = next(h for h in plan.hypotheses if h.id == primary)
    closed = rehearse.closed_form(plan, assumed, first, *planned)
    here = [p for p in points if (p.participants, p.images) == planned]
    then = f"contrafact run {file} --dry-run"
    answer(
        {
            "study": plan.study, "target": target, "primary": primary, "currency": plan.survey.pay.currency,
            "planned": [_plain(asdict(p)) for p in here], "closed_form": _number(closed),
            "curve": [_plain(asdict(p)) for p in curve],
            "cheapest": None if cheapest is None else _plain(asdict(cheapest)),
            "assumed": {**assumed.model_dump(), "declared": plan.survey.respondents is not None},
            "true_slope": _number(rehearse.true_slope(plan, assumed, first.question)),
            "seconds": round(time.perf_counter() - began, 1), "next": then,
        },
        as_json=as_json,
        text=_told(plan, curve, here, cheapest, target),
        then=then,
    )  # fmt: skip


def _told(plan: Study, curve: list[Point], here: list[Point], cheapest: Point | None, target: float) -> str:
    assert plan.survey is not None
    currency, primary = plan.survey.pay.currency, curve[0].hypothesis
    lines = [
        f"{p.hypothesis}: power {p.power:.2f} ({p.low:.2f} to {p.high:.2f}) with {p.participants} participants and "
        f"{p.images} images, {p.replications} simulated studies."
        for p in here
    ]
    if plan.survey.respondents is None:
        lines.append("The study names no `survey.respondents`; the program's defaults are assumed. Set --slope at least.")
    lines += ["", f"{primary} by size (in brackets the 95% Monte Carlo interval):"]
    lines.append(
        table(
            ("participants", "images", "power", "", "ceiling", f"cost, {currency}"),
            [
                (
                    p.participants, p.images, f"{p.power:.2f}", f"({p.low:.2f} to {p.high:.2f})",
                    f"{p.ceiling:.2f}" if math.isfinite(p.ceiling) else "none", f"{p.cost:,.2f}",
                )
                for p in curve
            ],
        )
    )  # fmt: skip
    if cheapest is None:
        lines.append(f"No size of the curve reaches power {target:g}; try more images first, then more participants.")
    else:
        lines.append(
            f"Cheapest that reaches {target:g}: {cheapest.participants} participants and {cheapest.images} images, "
            f"{cheapest.cost:,.2f} {currency}."
        )
    if curve[0].ceiling < target:
        lines.append(f"With {curve[0].images} images power cannot pass {curve[0].ceiling:.2f}, however many people answer.")
    return "\n".join(lines)


def _plain(values: dict[str, Any]) -> dict[str, Any]:
    return {key: _number(value) if isinstance(value, float) else value for key, value in values.items()}


def _number(value: float) -> float | None:
    return value if math.isfinite(value) else None

"""``contrafact demo``: the whole chain on a rendered world, where the truth is known."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from contrafact.cli.output import Json, Workspace, answer, duration, table
from contrafact.cli.run import carry_out

STATEMENT = ("id", "arm", "estimate", "low", "high", "p", "equivalent")
QUALITY = ("judge_flip_rate", "judge_spearman", "leakage_max_sd", "null_max_error")


def register(app: typer.Typer) -> None:
    @app.command()
    def demo(
        seed: Annotated[
            int | None, typer.Option(min=0, max=2**31 - 1, help="Another world, other people, other draws.")
        ] = None,
        workspace: Workspace = None,
        as_json: Json = False,
    ) -> None:
        """Runs a study whose true answer is planted: a cause, and a correlated nuisance without effect."""
        import re

        from contrafact import bundle, settings, study
        from contrafact.errors import UserError

        place = settings.read()
        text = (bundle.folder("studies") / "demo.yaml").read_text(encoding="utf-8")
        if seed is not None:
            text = re.sub(r"(?m)^seed:.*$", f"seed: {seed}", text)
        # A copy in the workspace: the same file can be looked at, changed and run again.
        file = place.workspace / "demo.yaml"
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text, encoding="utf-8")
        except OSError as error:
            raise UserError(f"{file} cannot be written: {error.strerror}.", hint="Use --workspace DIR.") from None

        result = carry_out(study.load(file), place, as_json=as_json)
        facts = result.facts
        if result.stopped:
            answer(
                {"stopped": result.stopped, "report": facts.get("report", {}).get("report")},
                as_json=as_json,
                text=result.stopped,
                then=f"contrafact report {file}",
            )
            return
        statements = [{key: one.get(key) for key in STATEMENT} for one in facts["analyse"]["statements"]]
        quality = {key: facts["gate"]["quality"].get(key) for key in QUALITY}
        seconds = {stage.name: round(stage.seconds, 2) for stage in result.stages}
        report, truth = facts["report"]["report"], facts["analyse"]["truth"]
        answer(
            {
                "report": report,
                "truth": truth,
                "statements": statements,
                "quality": quality,
                "seconds": seconds,
            },
            as_json=as_json,
            text="\n".join(
                [
                    f"{'together':10}{duration(sum(seconds.values()))}",
                    "",
                    table(STATEMENT, [[_shown(one[key]) for key in STATEMENT] for one in statements]),
                    f"The planted truth is {_shown(truth)} rating points per SD of dose.",
                    f"Report: {report}",
                ]
            ),
            then=f"contrafact report {file} --open",
        )


def _shown(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:.3g}" if isinstance(value, float) else str(value)

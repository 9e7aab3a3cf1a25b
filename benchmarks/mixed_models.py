"""Crossed mixed models against other tools, on the same data, one process each.

    python benchmarks/mixed_models.py [--quick] [--gpboost-python PYTHON] [--skip TOOL] [--keep FILE] [--json FILE]

Simulated ratings, 40 by each participant, participants and images crossed, REML; intercepts, or correlated slopes on
both; then binary and ordinal ratings at 100,000. ``--quick`` stops at 100,000 gaussian ratings. Tools: contrafact; lme4
and ordinal where Rscript finds them; gpboost where ``--gpboost-python`` names an interpreter that has it and pandas;
statsmodels at the smallest size alone, since it needs 10 GB for 100,000 ratings. gpboost has no correlation of
intercept and slope and no REML, so its numbers differ by what the model differs.

The time is that of reading the data frame into the model and fitting it with standard errors, without starting the
interpreter; the memory is the process's peak. ``max_rel_diff`` compares estimates and standard errors with the row's
reference: lme4 or ordinal, where that ran. ``evaluation_s`` is CPU time for one evaluation of the criterion and its
gradient, which depends on levels and cells: the rows at the end repeat every rating ten times. ``--keep FILE`` appends
each fit as it is done and takes up what the file holds already, so that a run that was cut off goes on.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

SIZES = {20_000: (500, 200), 100_000: (2_500, 400), 1_000_000: (25_000, 1_000)}
"""Ratings, and the participants and images that give them."""
FORMULAS = {
    "intercepts": "y ~ x + (1 | participant) + (1 | image)",
    "slopes": "y ~ x + (1 + x | participant) + (1 + x | image)",
}
KEYS = ("tool", "ratings", "random", "family", "repeats")
R = """
suppressPackageStartupMessages({library(lme4); library(ordinal)})
words <- commandArgs(TRUE); table <- read.csv(words[1]); formula <- as.formula(words[2])
if (words[3] == "ordinal") table$y <- factor(table$y, ordered = TRUE)
table$participant <- factor(table$participant); table$image <- factor(table$image)
before <- proc.time()
fit <- switch(words[3], gaussian = lmer(formula, table), binary = glmer(formula, table, family = binomial),
              ordinal = clmm(formula, table))
took <- proc.time() - before
co <- coef(summary(fit))[, 1:2]
peak <- as.numeric(strsplit(grep("VmHWM", readLines("/proc/self/status"), value = TRUE), " +")[[1]][2]) / 1000
cat(sprintf('{"cpu_s": %.3f, "wall_s": %.3f, "peak_mb": %.0f, "numbers": [%s]}', took[1] + took[2], took[3], peak,
            paste(formatC(c(co), digits = 12, format = "g"), collapse = ", ")))
"""


def ratings(n: int, random: str, family: str, repeats: int = 1) -> pd.DataFrame:
    from contrafact import seeds  # the interpreter that has gpboost need not have us

    participants, images = SIZES[n // repeats]
    each = n // repeats // participants
    rng = seeds.generator(5, "benchmark", n // repeats, random, family)
    p = np.repeat(np.arange(participants), each)
    i = np.concatenate([rng.choice(images, each, replace=False) for _ in range(participants)])
    p, i = np.tile(p, repeats), np.tile(i, repeats)
    x = rng.normal(size=n)
    spread = np.array([[1.0, 0.3], [0.3, 0.5]])
    up, ui = (rng.multivariate_normal([0, 0], spread, levels) for levels in (participants, images))
    eta = 0.5 * x + up[p, 0] + ui[i, 0] + (random == "slopes") * (up[p, 1] + ui[i, 1]) * x
    if family == "gaussian":
        y = 2 + eta + rng.normal(0, 1.5, n)
    elif family == "binary":
        y = (eta + rng.logistic(size=n) > 0.5).astype(int)
    else:
        y = np.digitize(eta + rng.logistic(size=n), [-2, -0.7, 0.7, 2]) + 1
    return pd.DataFrame({"y": y, "x": x, "participant": p, "image": i})


def ours(table: pd.DataFrame, random: str, family: str) -> dict[str, Any]:
    from contrafact.stats import fit
    from contrafact.stats.linear import LinearModel

    cpu, wall = time.process_time(), time.perf_counter()
    found = fit(table, FORMULAS[random], family=family)
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    numbers = [c.estimate for c in found.coefficients] + [c.se for c in found.coefficients]
    answer = {
        "cpu_s": cpu, "wall_s": wall, "peak_mb": peak_mb(), "numbers": numbers, "converged": found.converged,
        "evaluations": found.engine.evaluations,
    }  # fmt: skip
    if family == "gaussian" and len(table) < 500_000:
        made = found.design
        model = LinearModel(made.y.to_numpy(float), made.x, made.factors)
        cpu = time.process_time()
        evaluations = model.fit().evaluations
        answer["evaluation_s"] = (time.process_time() - cpu) / evaluations
    return answer


def theirs(table: pd.DataFrame, random: str, family: str) -> dict[str, Any]:
    """statsmodels: both factors as variance components of one group; intercepts alone."""
    import statsmodels.formula.api as smf

    cpu, wall = time.process_time(), time.perf_counter()
    model = smf.mixedlm(
        "y ~ x", table.assign(all=1), groups="all", vc_formula={"p": "0 + C(participant)", "i": "0 + C(image)"},
        use_sparse=True,
    )  # fmt: skip
    found = model.fit()
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    return {"cpu_s": cpu, "wall_s": wall, "peak_mb": peak_mb(), "numbers": [*found.fe_params, *found.bse_fe]}


def boosted(table: pd.DataFrame, random: str, family: str) -> dict[str, Any]:
    """gpboost by maximum likelihood; its slopes are independent of its intercepts."""
    import gpboost

    x = table["x"].to_numpy(float)
    slopes = {"group_rand_coef_data": np.column_stack([x, x]), "ind_effect_group_rand_coef": [1, 2]}
    cpu, wall = time.process_time(), time.perf_counter()
    model = gpboost.GPModel(
        group_data=table[["participant", "image"]].to_numpy(), likelihood="gaussian", **(slopes if random == "slopes" else {})
    )
    model.fit(y=table["y"].to_numpy(float), X=np.column_stack([np.ones(len(x)), x]))
    numbers = np.asarray(model.get_coef(std_err=True), float)
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    return {"cpu_s": cpu, "wall_s": wall, "peak_mb": peak_mb(), "numbers": [*numbers[0], *numbers[1]]}


CHILDREN = {"contrafact": ours, "statsmodels": theirs, "gpboost": boosted}


def peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000


def one(tool: str, file: Path, random: str, family: str, python: str) -> dict[str, Any]:
    """One fit in a process of its own."""
    if tool in ("lme4", "ordinal"):
        words = ["Rscript", "-e", R, str(file), FORMULAS[random], family]
    else:
        words = [python if tool == "gpboost" else sys.executable, __file__, "--child", tool, str(file), random, family]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{tool} on {file.name}: {done.stderr[-2000:]}")
    answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return answer


def plan(options: argparse.Namespace) -> list[tuple[int, str, str, int, list[str]]]:
    r, boost = bool(shutil.which("Rscript")), bool(options.gpboost_python)
    sizes = [n for n in SIZES if not (options.quick and n > 100_000)]
    runs = []
    for n in sizes:
        for random in FORMULAS:
            others = ["gpboost"] * boost + ["lme4"] * r + ["statsmodels"] * (n == min(SIZES) and random == "intercepts")
            runs.append((n, random, "gaussian", 1, ["contrafact", *others]))
    if not options.quick:
        runs.append((100_000, "intercepts", "binary", 1, ["contrafact", *["lme4"] * r]))
        runs.append((100_000, "intercepts", "ordinal", 1, ["contrafact", *["ordinal"] * r]))
    runs.append((200_000, "slopes", "gaussian", 10, ["contrafact"]))
    return [(*run[:4], [tool for tool in run[4] if tool not in options.skip]) for run in runs]


def kept(file: Path | None) -> dict[tuple[object, ...], dict[str, Any]]:
    """What an earlier run has measured, by tool and table."""
    if file is None or not file.exists():
        return {}
    rows = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    return {tuple(row[key] for key in KEYS): row for row in rows}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="up to 100,000 ratings, gaussian alone")
    parser.add_argument("--gpboost-python", metavar="PYTHON", default="", help="an interpreter that has gpboost and pandas")
    parser.add_argument("--skip", action="append", default=[], choices=["lme4", "ordinal", "statsmodels"])
    parser.add_argument("--keep", type=Path, metavar="FILE", help="JSON lines, one a fit: appended, and taken up again")
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--child", nargs=4, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        tool, file, *how = options.child
        print(json.dumps(CHILDREN[tool](pd.read_csv(file), *how)))
        return
    rows: list[dict[str, Any]] = []
    done = kept(options.keep)
    with tempfile.TemporaryDirectory() as folder:
        for n, random, family, repeats, tools in plan(options):
            file = Path(folder) / f"{family}-{random}-{n}.csv"
            answers = {}
            for tool in tools:
                key = (tool, n, random, family, repeats)
                if key not in done:
                    if not file.exists():
                        ratings(n, random, family, repeats).to_csv(file, index=False)
                    answer = one(tool, file, random, family, options.gpboost_python)
                    done[key] = {**dict(zip(KEYS, key, strict=True)), **answer}
                    if options.keep:
                        with options.keep.open("a", encoding="utf-8") as stream:
                            stream.write(json.dumps(done[key]) + "\n")
                answers[tool] = dict(done[key])
            file.unlink(missing_ok=True)
            reference = next((answers[tool] for tool in ("lme4", "ordinal") if tool in answers), None)
            right = np.array(reference["numbers"]) if reference else None
            for row in answers.values():
                numbers = np.array(row.pop("numbers"))
                row["max_rel_diff"] = None if right is None else float(np.max(np.abs(numbers - right) / np.abs(right)))
                rows.append(row)
                print(json.dumps(row), file=sys.stderr)
    machine = f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}, numpy {np.__version__}"
    text = json.dumps({"rows": rows, "machine": machine}, indent=1)
    if options.json:
        options.json.write_text(text + "\n", encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()

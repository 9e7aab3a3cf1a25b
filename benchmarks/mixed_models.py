"""Crossed mixed models against other tools, on the same data, one process each.

    python benchmarks/mixed_models.py [--quick] [--families] [--skip TOOL] [--json FILE]

Simulated ratings, 40 by each participant, participants and images crossed, REML; intercepts, or correlated slopes on
both. ``--quick`` stops at 100,000 ratings. ``--families`` adds binary and ordinal ratings at 100,000. Tools:
contrafact; lme4 and ordinal where Rscript finds them; statsmodels at the smallest size alone, since it needs 10 GB
for 100,000 ratings. The time is that of reading the data frame into the model and fitting it, without starting the
interpreter; the memory is the process's peak. ``max_rel_diff`` compares estimates and standard errors with the
row's reference: lme4 or ordinal, where that ran. ``evaluation_s`` is CPU time for one evaluation of the criterion
and its gradient, which depends on levels and cells: the rows at the end repeat every rating ten times.
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

from contrafact import seeds

SIZES = {20_000: (500, 200), 100_000: (2_500, 400), 1_000_000: (25_000, 1_000)}
"""Ratings, and the participants and images that give them."""
FORMULAS = {
    "intercepts": "y ~ x + (1 | participant) + (1 | image)",
    "slopes": "y ~ x + (1 + x | participant) + (1 + x | image)",
}
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


def peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000


def one(tool: str, file: Path, random: str, family: str) -> dict[str, Any]:
    """One fit in a process of its own."""
    if tool in ("lme4", "ordinal"):
        words = ["Rscript", "-e", R, str(file), FORMULAS[random], family]
    else:
        words = [sys.executable, __file__, "--child", tool, str(file), random, family]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{tool} on {file.name}: {done.stderr[-2000:]}")
    answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return answer


def child(tool: str, file: str, random: str, family: str) -> None:
    print(json.dumps((ours if tool == "contrafact" else theirs)(pd.read_csv(file), random, family)))


def plan(options: argparse.Namespace) -> list[tuple[int, str, str, int, list[str]]]:
    r = bool(shutil.which("Rscript"))
    sizes = [n for n in SIZES if not (options.quick and n > 100_000)]
    runs = []
    for n in sizes:
        for random in FORMULAS:
            others = ["lme4"] * r + ["statsmodels"] * (n == min(SIZES) and random == "intercepts")
            runs.append((n, random, "gaussian", 1, ["contrafact", *others]))
    if options.families:
        runs.append((100_000, "intercepts", "binary", 1, ["contrafact", *["lme4"] * r]))
        runs.append((100_000, "intercepts", "ordinal", 1, ["contrafact", *["ordinal"] * r]))
    runs.append((200_000, "slopes", "gaussian", 10, ["contrafact"]))
    return [(*run[:4], [tool for tool in run[4] if tool not in options.skip]) for run in runs]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="up to 100,000 ratings")
    parser.add_argument("--families", action="store_true", help="binary and ordinal ratings too")
    parser.add_argument("--skip", action="append", default=[], choices=["lme4", "ordinal", "statsmodels"])
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--child", nargs=4, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        return child(*options.child)
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        for n, random, family, repeats, tools in plan(options):
            file = Path(folder) / f"{family}-{random}-{n}.csv"
            ratings(n, random, family, repeats).to_csv(file, index=False)
            answers = {tool: one(tool, file, random, family) for tool in tools}
            reference = next((answers[tool] for tool in ("lme4", "ordinal") if tool in answers), None)
            kept = np.array(reference["numbers"]) if reference else None
            for tool, answer in answers.items():
                numbers = np.array(answer.pop("numbers"))
                difference = None if kept is None else float(np.max(np.abs(numbers - kept) / np.abs(kept)))
                row = {"tool": tool, "ratings": n, "random": random, "family": family, "repeats": repeats}
                rows.append({**row, **answer, "max_rel_diff": difference})
                print(json.dumps(rows[-1]), file=sys.stderr)
    machine = f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}, numpy {np.__version__}"
    text = json.dumps({"rows": rows, "machine": machine}, indent=1)
    if options.json:
        options.json.write_text(text + "\n", encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()

"""The report: what it says, that it stands alone, and that those who do not see it can use it."""

import base64
import re
from html import unescape
from html.parser import HTMLParser
from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg

from contrafact import seeds
from contrafact.images import worlds
from contrafact.readings.results import ReportReading, reading
from contrafact.report import pdf, render
from contrafact.report.methods import methods
from contrafact.report.preregistration import preregistrations
from contrafact.stats.dose import Test as Claim
from contrafact.stats.dose import analyse
from contrafact.store.files import Files
from contrafact.study.schema import Study

GRID = (-1.5, -0.75, 0.0, 0.75, 1.5)


@pytest.fixture(scope="module")
def study() -> Study:
    return Study.model_validate({
        "study": "grooming", "title": "Does grooming make faces look trustworthy?", "seed": 7,
        "question": "Does a groomed <face> & hair move judgements?",
        "world": {"kind": "confounded", "images": 2000},
        "directions": {"groomed": {"kind": "guidance", "hold": ["skin"]}},
        "survey": {"questions": [{"name": "trust", "text": "How trustworthy is this person?"}], "respondents": {}},
        "hypotheses": [
            {"id": "H1", "claim": "More groomed faces are judged more trustworthy.", "direction": "groomed",
             "question": "trust", "alternative": "greater", "primary": True},
            {"id": "H2", "claim": "Editing as such moves nobody.", "direction": "groomed", "question": "trust",
             "arm": "sham", "test": "equivalence", "margin": 3.0},
            {"id": "H3", "claim": "Permuted labels move nobody.", "direction": "groomed", "question": "trust",
             "arm": "placebo", "test": "equivalence", "margin": 3.0},
        ],
    })  # fmt: skip


@pytest.fixture(scope="module")
def whole(study: Study, tmp_path_factory: pytest.TempPathFactory) -> ReportReading:
    return reading(
        study, facts(study), files := Files((tmp_path_factory.mktemp("files")).as_uri()),
        ratings=ratings(), stimuli=stimuli(files), provenance=[("registration", "ab" * 32), ("run", "17")],
    )  # fmt: skip


def test_methods_say_who_reads_the_dose(study: Study) -> None:
    guide = study.predictors.guide.model_copy(update={"steering_share": 0.4})
    predictors = study.predictors.model_copy(update={"guide": guide})
    apart = " ".join(text for _, text in methods(study.model_copy(update={"predictors": predictors}), {}, ()))
    together = " ".join(text for _, text in methods(study, {}, ()))
    told = "It learned from 40% of the training units; levels and doses are read by a second ensemble"
    assert told in apart
    assert "second ensemble" not in together


def ratings() -> pd.DataFrame:
    rng = seeds.generator(1, "report")
    variants = [("null", 0.0), *((arm, d) for arm in ("treated", "sham", "placebo") for d in GRID if d)]
    rows = pd.DataFrame(
        [(p, k % 24, *variants[rng.integers(13)]) for p in range(30) for k in range(p, p + 40)],
        columns=["participant", "image", "arm", "dose"],
    )
    move = 8.0 * rows["dose"] * (rows["arm"] == "treated")
    rows["value"] = (50 + rng.normal(0, 8, 30)[rows["participant"]] + move + rng.normal(0, 9, len(rows))).clip(0, 100)
    rows["draw"] = np.where(rows["arm"] == "placebo", rng.integers(1, 9, len(rows)), 0)
    return rows.assign(direction="groomed", question="trust", excluded=rows["participant"] == 3)


def stimuli(files: Files) -> pd.DataFrame:
    """Rendered faces as stimuli: the planted factor moves in the treated arm, nothing in sham."""
    from contrafact.images.decode import png_bytes
    from contrafact.study.schema import World

    sample = worlds.sample(World(images=200), 3)
    cause = list(sample.names).index("groom")
    rows = []
    for image in range(8):
        for arm in ("treated", "sham"):
            for dose in GRID:
                factors = sample.factors[[image]].copy()
                factors[0, cause] += dose * (arm == "treated")
                digest = files.put(png_bytes(worlds.render(factors, 32)[0]))
                rows.append((f"face-{image:02d}", "groomed", arm if dose else "null", 0, dose, digest, 0.9 * dose))
    columns = ["image", "direction", "arm", "draw", "dose", "pixels_sha256", "judge_dose"]
    return pd.DataFrame(rows, columns=columns).drop_duplicates(columns[:5])


def facts(study: Study) -> dict[str, dict]:
    tests = [
        Claim(h.id, h.direction, h.question, h.arm, h.test, h.alternative, h.margin) for h in study.hypotheses
    ]  # fmt: skip
    statements = [s.facts() for s in analyse(ratings(), tests, study.seed, {"trust": (0, 100)})]
    return {
        "ingest": {"images": 2000, "by_split": {"train": 800, "judge": 640}},
        "predict": {
            "quality": {"guide.outcome": {"metric": "auc", "value": 0.861, "low": 0.83, "high": 0.89}},
            "stopped": None,
        },
        "generate": {"stimuli": 1500, "in_support": 60, "out_of_support": 3},
        "gate": {
            "quality": {"judge_flip_rate": 0.98, "judge_spearman": 0.99, "null_max_error": 0.0, "realism": None},
            "sets_passed": 58, "sets_failed": 2, "reasons": {"leakage_skin": 2}, "drawable": {"groomed": True},
            "held": {"groomed": {
                "skin": {"estimable": True, "signed_max_sd": 0.05, "equivalence": {
                    "estimate": 0.03, "low": -0.01, "high": 0.07, "margin": 0.15, "p": 0.001, "equivalent": True}},
                "brow": {"estimable": False, "signed_max_sd": None, "equivalence": {"equivalent": True}},
            }},
            "directions": {"groomed": {"effects": {"treated": {"slope": 0.92}, "sham": {"slope": 0.01}}, "images": 60}},
            "factor_slopes": {"groom": 0.8, "skin": 0.02},
            "by_dose": [
                {"direction": "groomed", "arm": arm, "dose": d, "judge": 0.92 * d * (arm == "treated")}
                for arm in ("treated", "sham") for d in GRID
            ],
        },
        "field": {"participants": 30, "ratings": 1200, "excluded": {"attention": 1, "speed": 0}},
        "analyse": {"statements": statements, "truth": 7.6},
    }  # fmt: skip


class Page(HTMLParser):
    """What a machine that reads aloud would find."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def all(self, *names: str) -> list[dict[str, str | None]]:
        return [attrs for tag, attrs in self.tags if tag in names]


def test_the_claim_can_be_read_aloud(whole: ReportReading) -> None:
    first, second, _ = whole.claims
    assert first.verdict == "supported"
    assert first.sentence.startswith("The data support the claim “More groomed faces are judged more trustworthy”:")
    assert re.search(r"is \d+\.\d\d rating points per SD of dose, 95% interval \d+\.\d\d to \d+\.\d\d, p < \.001", first.sentence)
    assert "90% interval" in second.sentence and "margin of ±3.00" in second.sentence
    assert "29 participants" in first.sentence, "the excluded person is not counted"
    html = unescape(render(whole))
    for piece in (first.sentence, "contains the truth", "simulated", "exploratory", "Satterthwaite", "ab" * 32):
        assert piece in html


def test_the_file_stands_alone(whole: ReportReading) -> None:
    html = render(whole)
    page = Page(html)
    assert not page.all("script", "link", "iframe", "object", "embed")
    assert all(str(image["src"]).startswith("data:image/") for image in page.all("img"))
    svgs = [base64.b64decode(str(i["src"]).split(",")[1]) for i in page.all("img") if "svg" in str(i["src"])[:20]]
    assert len(svgs) == 3 and not any(b"<script" in svg or b"url(http" in svg for svg in svgs)
    assert "url(" not in html.split("<body>")[0].replace("data:", "")
    assert render(whole) == html
    assert "&lt;face&gt; &amp;" in html, "what a study says is text, never markup"


def test_those_who_do_not_see_it_can_use_it(whole: ReportReading) -> None:
    page = Page(render(whole))
    assert page.all("html")[0]["lang"] == "en"
    levels = [int(tag[1]) for tag, _ in page.tags if re.fullmatch(r"h[1-6]", tag)]
    assert levels[0] == 1 and levels.count(1) == 1
    assert all(after - before <= 1 for before, after in pairwise(levels))
    assert all(image["alt"] for image in page.all("img"))
    assert len({image["alt"] for image in page.all("img")}) == len(page.all("img")), "each picture has its own words"
    assert all(th.get("scope") in ("row", "col") for th in page.all("th"))
    assert len(page.all("caption")) == len(page.all("table"))
    ids = [attrs["id"] for _, attrs in page.tags if "id" in attrs]
    assert len(ids) == len(set(ids))
    assert all(section["aria-labelledby"] in ids for section in page.all("section"))


def test_the_reliability_of_the_ratings_is_told_with_the_ceiling(whole: ReportReading) -> None:
    (table,) = whole.reliability
    told = dict(row[:2] for row in table.rows)
    single, several = (float(told[name]) for name in list(told)[:2])
    assert 0 < single < several < 1 and float(told["ceiling of R² for what predicts a stimulus's mean"]) == several
    assert "Krippendorff&#39;s alpha, interval" in render(whole)


def test_strips_show_rows_of_images_and_columns_of_doses(whole: ReportReading) -> None:
    treated, sham = whole.strips
    assert treated.columns == ("−1.50", "−0.75", "0.00", "0.75", "1.50")
    assert len(treated.rows) == 6 and len(sham.rows) == 2
    name, cells = treated.rows[0]
    assert cells[0].alt == f"Image {name}, treated, dose −1.50, the judge reads −1.35 SD"
    assert all(cell.png for _, row in treated.rows for cell in row)
    assert cells[0].png != cells[4].png


def test_a_study_that_stopped_says_why_and_what_would_help(study: Study) -> None:
    sentence = "The judge's AUC is 0.51 [0.47, 0.55], an interval that includes chance."
    stopped = reading(study, {"ingest": {"images": 2000}, "predict": {"stopped": sentence}})
    html = render(stopped)
    assert {claim.verdict for claim in stopped.claims} == {"not tested"}
    assert sentence.split("'")[0] in html and "What would help" in html and "More labelled images" in html
    assert "No statement was made" in html and not Page(html).all("img")

    lost = reading(study, {"gate": {"drawable": {"groomed": False}, "stopped": "The direction is not drawable."}})
    assert "not drawable" in render(lost) and any("kind: guidance" in one for one in lost.advice)


def test_undefined_is_never_a_number(study: Study) -> None:
    table = ratings()
    tests = [Claim("H1", "groomed", "trust"), Claim("H2", "groomed", "trust", "sham", "equivalence", margin=3.0)]
    statements = [s.facts() for s in analyse(table[table["arm"] != "sham"], tests, 1)]
    without = reading(study, {"analyse": {"statements": statements, "truth": None}})
    assert without.claims[0].verdict == "not estimable" and without.truth is None
    html = render(without)
    assert "not estimable" in html and not re.search(r"\bnan\b|\bNone\b", re.sub(r"base64,[^\"]*", "", html))


def test_a_probe_that_knows_nothing_cannot_say_that_it_was_held(whole: ReportReading) -> None:
    held = next(table for table in whole.quality if table.caption.startswith("Held"))
    rows = {row[1]: row for row in held.rows}
    assert rows["skin"][6] == "equivalent" and rows["skin"][2] == "0.030"
    assert set(rows["brow"][2:]) == {"not estimable"}


def test_the_pdf_says_what_the_page_says_and_nothing_runs_over_the_edge(whole: ReportReading) -> None:
    found = pdf._report(whole)
    said = " ".join(text.get_text() for page in found.pages for text in page.texts)
    for claim in whole.claims:
        assert claim.sentence in said
    for figure in whole.figures:
        assert figure.caption in said
    for statement in whole.statements:
        assert statement.id in said
    assert sum(len(page.axes) for page in found.pages) >= len(whole.figures) + 30, "figures and stimuli are drawn"
    for page in found.pages:
        page.set_dpi(400)  # where whole pixels hardly stretch the text
        renderer = FigureCanvasAgg(page).get_renderer()
        for text in page.texts:
            box = text.get_window_extent(renderer).transformed(page.dpi_scale_trans.inverted())
            assert box.x1 * 72 <= pdf.WIDTH - pdf.MARGIN + 6, text.get_text()
            assert box.y0 * 72 >= pdf.MARGIN - 4
    first = pdf.report_pdf(whole)
    assert first.startswith(b"%PDF") and first == pdf.report_pdf(whole), "the same content gives the same bytes"


def test_a_registration_as_pdf_has_its_words_without_the_marks(study: Study) -> None:
    payload = {
        "content": study.model_dump(mode="json"), "code": {"version": "1", "sha256": "ab" * 32}, "sha256": "cd" * 32,
        "stimuli": "ef" * 32, "plan": [{"method": "H1: a *test* of <this> & that"}],
    }  # fmt: skip
    for text in preregistrations(payload, "12" * 32, "2026-01-01 00:00").values():
        said = " ".join(one.get_text() for page in pdf._markdown(text).pages for one in page.texts)
        assert "H1: a *test* of <this> & that" in said and "H1 (primary): More groomed faces" in said
        assert "\\" not in said and "**" not in said and "&lt;" not in said
        assert pdf.markdown_pdf(text).startswith(b"%PDF")

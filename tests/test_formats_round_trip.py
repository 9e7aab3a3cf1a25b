"""Out and back: a batch in every format, answered as people of that tool would, comes in as the same long table; and no
hostile text does harm on the way or is lost in the files for machines."""

import csv
import functools
import html.parser
import http.server
import json
import os
import re
import shutil
import threading
import xml.etree.ElementTree
from pathlib import Path
from urllib.parse import parse_qs

import pandas as pd
import pytest

from contrafact import bundle
from contrafact.cli import _run
from contrafact.errors import UserError
from contrafact.readings.results import reading
from contrafact.report import pdf, render
from contrafact.store import open_store
from contrafact.store.files import Files
from contrafact.store.records import ImageRecord, StimulusRecord
from contrafact.study import load
from contrafact.study.schema import Question, Study
from contrafact.survey import batch, fielding
from contrafact.survey.formats import FORMATS, Reading, alone
from contrafact.survey.formats.guard import FORMULA_STARTS, is_number, unguarded
from contrafact.survey.formats.reading import long_table
from contrafact.survey.ledger import Ledger

SALT = bytes(32)
ADDRESS = "https://pictures.example.org/study/"
QUESTIONS = (
    Question(name="trust", text="How trustworthy is this person?"),
    Question(name="warm", text="How warm?", low="cold", high="warm", scale="likert7"),
)
SEVERAL = (
    Question(name="neat", text="Which is neater?", scale="choice"),
    *Question(name="kind", text="Which is kind?", low="least", high="most", scale="best_worst").parts(),
    Question(name="why", text="What differs?", scale="text"),
)
HOSTILE = [*json.loads((Path(__file__).parent / "hostile.json").read_text()), "x" * 1_000_000]
ATTRIBUTES = {"lang", "charset", "name", "content", "class", "id", "href", "src", "alt", "scope", "style", "role", "aria-labelledby",
              "aria-label", "colspan", "rowspan", "open", "width", "height", "title", "datetime", "tabindex", "data-run", "http-equiv"}  # fmt: skip
SAFE = '= <b> + "x" {a} $x [[y]]'


@pytest.fixture
def trials() -> pd.DataFrame:
    """Three lists of four pictures and two attention trials, which stand at other places in each."""
    rows = []
    for number, code in enumerate(("aa11", "bb22", "cc33")):
        checks = {1 + number: 20.0, 4: 70.0}
        for position in range(6):
            target = checks.get(position)
            kind, stimulus = ("attention", None) if target else ("image", f"s{(position + number) % 6}")
            rows.append((code, number, position, kind, stimulus, target))
    return pd.DataFrame(rows, columns=["assignment", "list", "position", "kind", "stimulus", "target"])


@pytest.fixture
def compared(trials) -> pd.DataFrame:
    """The same lists with three pictures a trial, one of which is the answer of a guess."""
    images = trials[trials["kind"] == "image"]
    places = [images.assign(place=n, stimulus=images["stimulus"] + f"-{n}", target=2.0) for n in range(3)]
    return pd.concat([trials[trials["kind"] == "attention"].assign(place=0), *places]).sort_values(["list", "position", "place"])


def picture(stimulus: object) -> bytes:
    """A real PNG of one pixel; Chromium must be able to show it."""
    return bytes.fromhex(
        "89504e470d0a1a0a0000000d4948445200000001000000010802000000907753de0000000c4944415408d763f8cfc0000003010100c9fe92ef"
        "0000000049454e44ae426082"
    )


def out(tmp_path, trials, format, questions=QUESTIONS, title="A study"):
    folder = tmp_path / format
    guesses = "place" in trials  # of which no file tells the answer
    lost = batch.export(folder, trials, questions, picture, SALT, title=title, format=format, pictures=ADDRESS if format in batch.NEED_ADDRESS else "")  # fmt: skip
    card = (folder / "data_card.md").read_text()
    assert all(sentence in card for sentence in lost) and bool(lost) == (format != "csv" or guesses)
    return folder


def truth(trials, questions=QUESTIONS):
    """What everybody answers, by assignment, position and question."""
    asked = batch.asked(trials, questions)
    scales = {"likert7": lambda n: 1 + n % 7, "vas": lambda n: round((n * 7.3) % 100, 1), "text": lambda n: f"hair, {n}"}
    scales |= {"choice": lambda n: 1 + n % 3, "best": lambda n: 1 + n % 2, "worst": lambda n: 3}
    value = [row.target if row.kind == "attention" else scales[row.scale](n) for n, row in enumerate(asked.itertuples())]
    names = [[f"{batch.keyed(SALT, 'picture', one, length=20)}.png" for one in shown] for shown in asked["shown"]]
    asked["files"] = pd.Series(list(map(tuple, names)), index=asked.index, dtype=object)
    return asked, {(r.assignment, r.position, r.question): v for r, v in zip(asked.itertuples(), value, strict=True)}


def answers_csv(folder, said):
    with (folder / "answers_template.csv").open(newline="", encoding="utf-8") as lines:
        rows = list(csv.DictReader(lines))
    for row in rows:
        row["value"] = said[row["assignment"], int(row["position"]) - 1, row["question"]]
        row["participant"], row["response_ms"] = f"person-{row['assignment']}", 900
    pd.DataFrame(rows).to_csv(folder / "answers.csv", index=False)
    return folder / "answers.csv"


def answers_qualtrics(folder, said, asked):
    """Reads the survey as Qualtrics would: embedded data from the link, loops from the table, tags from the text."""
    text = (folder / "survey.txt").read_text()
    assert text.startswith("[[AdvancedFormat]]\n")
    blocks = dict(re.findall(r"\[\[Block:([^\]]*)\]\]\n(.*?)(?=\[\[Block:|\Z)", text, flags=re.DOTALL))
    looped = re.findall(r"\[\[ID:(.*?)\]\]", blocks.pop("Pictures"))
    once = [tag for block in blocks.values() for tag in re.findall(r"\[\[ID:(.*?)\]\]", block)]
    with (folder / "loop_merge.csv").open(newline="") as lines:
        loops = [row[:-1] for row in csv.reader(lines)]
    assert set(re.findall(r"\$\{lm://Field/(\d)\}", text)) == {str(n + 1) for n in range(len(loops[0]))}
    with (folder / "links.csv").open(newline="") as lines:
        links = [{name: values[0] for name, values in parse_qs(row["query"]).items()} for row in csv.DictReader(lines)]
    names = [f"{n}_{tag}" for n in range(1, len(loops) + 1) for tag in looped] + once
    head = ["StartDate", "EndDate", "Status", "Finished", "ResponseId", *names, "PROLIFIC_PID", "assignment"]
    ids = [json.dumps({"ImportId": name}) for name in ["startDate", "endDate", "status", "finished", "_recordId", *(f"QID{n}" for n in range(len(names))), "PROLIFIC_PID", "assignment"]]  # fmt: skip
    rows = [head, head, ids]
    for link in links:
        code = link["assignment"]
        own = asked[asked["assignment"] == code]
        where = dict(zip(own["files"], own["position"], strict=True))
        cells = []
        for name in names:
            loop, tag = name.split("_", 1)
            if loop.isdigit():
                shown = tuple(link[re.fullmatch(r"\$\{e://Field/(picture_[\d_]+)\}", cell)[1]] for cell in loops[int(loop) - 1])
                cells.append(said[code, where[shown], tag])
            else:
                target = re.search(rf"\[\[ID:{name}\]\]\n.*?\$\{{e://Field/(\w+)\}}", text)[1]
                cells.append(link[target])
        rows.append(["2026-03-02 09:14:07", "2026-03-02 09:25:40", "0", "1", f"R_{code}", *cells, f"person-{code}", code])
    path = folder / "results.csv"
    with path.open("w", newline="") as lines:
        csv.writer(lines).writerows(rows)
    return path


def answers_surveyjs(folder, said):
    results = []
    kinds = {"rating", "slider", "radiogroup", "comment"}
    for path in sorted((folder / "surveys").glob("*.json")):
        survey = json.loads(path.read_text())
        data = {}
        for page in survey["pages"]:
            for element in page["elements"]:
                if element["type"] == "text":
                    data[element["name"]] = element.get("defaultValue", f"person-{path.stem}")
                elif element["type"] != "image":
                    assert element["type"] in kinds
                    position, question = element["name"].split("__")
                    data[element["name"]] = said[path.stem, int(position[1:]) - 1, question]
                    if element["type"] == "radiogroup":
                        assert data[element["name"]] in [choice["value"] for choice in element["choices"]]
        results.append(data)
    (folder / "results.json").write_text(json.dumps(results))
    return folder / "results.json"


def answers_label_studio(folder, said, codes=("aa11", "bb22", "cc33")):
    """The whole export, and beside it the short form, in which Label Studio writes one annotation a row."""
    config = xml.etree.ElementTree.parse(folder / "config.xml")
    tags = {tag.get("name"): tag for tag in config.iter() if tag.get("toName")}
    tasks, short = json.loads((folder / "tasks.json").read_text()), []
    for number, task in enumerate(tasks):
        data = task["data"]
        assert {data[tag.get("value")[1:]] for tag in config.iter("Image")} <= set(data.values())
        result = []
        for name, tag in tags.items():
            value, key = said[data["assignment"], data["position"] - 1, name], {"TextArea": "text"}.get(tag.tag, tag.tag.lower())
            if tag.tag == "Choices":
                assert str(value) in [choice.get("value") for choice in tag]
            given = {key: [str(value)] if tag.tag in ("Choices", "TextArea") else value}
            result.append({"from_name": name, "to_name": [tag.get("toName")], "type": key, "value": given})
        who = codes.index(data["assignment"]) + 1
        annotation = {"id": number, "completed_by": who, "was_cancelled": False, "lead_time": 3.25, "result": result}
        task |= {"id": number, "annotations": [annotation]}
        answers = {r["from_name"]: r["value"][r["type"]][0] if r["type"] in ("choices", "text") else [r["value"]] for r in result}
        short.append({"id": number, "annotation_id": number, "annotator": who, "lead_time": 3.25, **data, **answers})
    (folder / "export.json").write_text(json.dumps(tasks))
    (folder / "short.json").write_text(json.dumps(short))
    return folder / "export.json"


def answers_jspsych(folder, said):
    """What the page hands over (the browser test below has Chromium do it)."""
    runs = []
    for path in sorted((folder / "lists").glob("*.json")):
        for number, trial in enumerate(json.loads(path.read_text())["trials"]):
            response = {q["question"]: said[path.stem, trial["position"] - 1, q["question"]] for q in trial["questions"]}
            runs.append({"trial_type": "contrafact-trial", "trial_index": number, "rt": 1234, "assignment": path.stem,
                         "position": trial["position"], "stimulus": " ".join(trial["files"]), "response": response, "participant": f"person-{path.stem}"})  # fmt: skip
    (folder / "answers.json").write_text(json.dumps(runs))
    return folder / "answers.json"


def back(path, asked, said, *, people=3, without=(), format=None):
    """Imports a file and compares every answer."""
    reading, ledger = Reading(path), Ledger(SALT)
    ledger.ask(asked)
    fate, _ = ledger.read(reading)
    answers = pd.concat(ledger.new())
    assert reading.format == format and not fate.invalid and not fate.unmatched and fate.participants == people, fate
    found = {(r.assignment, r.position, r.question): r.text if isinstance(r.text, str) else r.value for r in answers.itertuples()}
    assert found == {key: value for key, value in said.items() if key[2] not in without}
    assert answers.groupby("assignment")["pid_hash"].nunique().eq(1).all() and answers["pid_hash"].nunique() == people
    return answers


@pytest.mark.parametrize(("shown", "questions"), [("trials", QUESTIONS), ("compared", SEVERAL)])
def test_every_format_comes_back_as_the_same_table(tmp_path, request, shown, questions):
    trials = request.getfixturevalue(shown)
    asked, said = truth(trials, questions)
    folders = {format: out(tmp_path, trials, format, questions) for format in batch.WRITERS}
    tables = {
        "csv": back(answers_csv(folders["csv"], said), asked, said, format="contrafact"),
        "qualtrics": back(answers_qualtrics(folders["qualtrics"], said, asked), asked, said, format="qualtrics"),
        "surveyjs": back(answers_surveyjs(folders["surveyjs"], said), asked, said, format="surveyjs"),
        "jspsych": back(answers_jspsych(folders["jspsych"], said), asked, said, format="jspsych"),
        "label_studio": back(
            answers_label_studio(folders["label_studio"], said), asked, said, without=("attention",), format="label_studio"
        ),
    }  # fmt: skip
    back(folders["label_studio"] / "short.json", asked, said, without=("attention",), format="label_studio")
    if shown == "compared":
        told = "Nobody is told after a guess"
        assert all(told in (folder / "data_card.md").read_text() for folder in folders.values())
        answers = pd.read_csv(folders["csv"] / "answers.csv", dtype=str)
        both = answers["question"].eq("kind_worst")
        answers.assign(value=answers["value"].mask(both, answers["value"].shift())).to_csv(folders["csv"] / "both.csv", index=False)
        ledger = Ledger(SALT)
        ledger.ask(asked)
        fate, _ = ledger.read(Reading(folders["csv"] / "both.csv"))
        assert fate.warnings == (f"trials in which one picture is named as the best and as the worst: {both.sum()}",)
        for path in (folders["surveyjs"] / "surveys").glob("*.json"):
            elements = [element for page in json.loads(path.read_text())["pages"] for element in page["elements"]]
            worst = [element for element in elements if element["name"].endswith("__kind_worst")]
            assert {e["validators"][0]["expression"] for e in worst} == {f"{{{e['name']}}} <> {{{e['name'][:-5]}best}}" for e in worst}
            assert len(elements) == len({element["name"] for element in elements})
    key = ["assignment", "position", "question"]
    for name in ("qualtrics", "surveyjs", "jspsych"):
        same = [*key, "value", "text", "pid_hash"]
        one, other = (tables[n][same].sort_values(key, ignore_index=True) for n in ("csv", name))
        pd.testing.assert_frame_equal(one, other)
    assert tables["label_studio"]["response_ms"].eq(3250).all() and tables["jspsych"]["response_ms"].eq(1234).all()
    assert set(batch.WRITERS) == set(tables), "every format that goes out comes back"
    assert set(batch.WRITERS) <= set(FORMATS)


def test_every_format_through_the_verbs_is_one_and_the_same_import(tmp_path, workspace, capsys):
    """Exported, answered and imported five times over: the first import is new, the others repeat it."""
    text = (bundle.folder("studies") / "templates" / "faces_world.yaml").read_text().replace("NAME", "small")
    text = text.replace("participants: 60", "participants: 3").replace("trials_per_participant: 52", "trials_per_participant: 13")
    (tmp_path / "small.yaml").write_text(text)
    loaded = load(tmp_path / "small.yaml")
    files = Files((workspace / "files").as_uri())
    arms = [("null", 0.0)] + [(arm, d) for arm in ("treated", "sham", "placebo") for d in (-1.5, -0.75, 0.75, 1.5)]
    with open_store(f"sqlite:///{workspace / 'store.db'}") as store:
        study_id = store.add_study("small", "Small", loaded.text, loaded.sha256)
        stage = store.start_stage(store.start_run(study_id, "m"), "generate", "ab" * 32, mlflow_run_id="n", code_version="1")
        pixels = files.put(picture(None))
        store.put_images(study_id, stage, [ImageRecord(f"img{k}", f"unit{k}", "stimuli", pixels, 1, 1) for k in range(13)])
        up = store.put_direction(study_id, name="outcome_up", kind="condition", target="outcome", hold=["skin"], spec={})
        store.put_stimuli(study_id, stage, [
            StimulusRecord(image.id, up, arm, 0, dose, f"outcome_up/{image.key}", True, pixels)
            for image in store.images(study_id) for arm, dose in arms
        ])  # fmt: skip
        table = store.stimuli_table(study_id)
        people = loaded.study.model_copy(update={"survey": loaded.study.survey.model_copy(update={"respondents": None})})
        fielding.open_batch(store, study_id, people, table.assign(key=table["stimulus"]))
        asked, said = truth(fielding.trials_of(store, study_id, loaded.study), loaded.study.survey.questions)
        salt = store.salt(study_id)
        asked["files"] = [tuple(f"{batch.keyed(salt, 'picture', s, length=20)}.png" for s in shown) for shown in asked["shown"]]

    def verb(*words):
        assert _run(["survey", *words, "--json"]) == 0
        return json.loads(capsys.readouterr().out)

    for format in batch.WRITERS:
        folder = tmp_path / format
        told = verb("export", str(tmp_path / "small.yaml"), "--to", str(folder), "--format", format, "--pictures", ADDRESS)
        assert bool(told["not_carried_over"]) == (format != "csv")
        if format == "label_studio":  # its annotators are other people; the door says so
            path = answers_label_studio(folder, said, sorted(asked["assignment"].unique()))
            assert _run(["survey", "import", str(tmp_path / "small.yaml"), str(path)]) == 2
            assert "already belongs to another participant" in capsys.readouterr().err
            continue
        path = answers_qualtrics(folder, said, asked) if format == "qualtrics" else globals()[f"answers_{format}"](folder, said)
        for dry in (["--dry-run"], []):
            fate = verb("import", str(tmp_path / "small.yaml"), str(path), *dry)
            assert fate["answers"] == (len(asked) if format == "csv" else 0) and fate["participants"] == 3, format
            assert fate["accepted"] + fate["duplicates"] == fate["rows"] and not fate["warnings"], format
    with open_store(f"sqlite:///{workspace / 'store.db'}") as store:
        assert len(store.answers(1, store.batches(1)[0].name)) == len(asked)
    kept = b"".join(path.read_bytes() for path in workspace.rglob("*") if path.is_file())
    assert b"person-" not in kept, "no raw id anywhere in the workspace"


def test_pictures_need_an_address_where_the_format_does_not_carry_them(tmp_path, trials):
    for address in ("", "ftp://x/", "https://x.org", 'https://x.org/"onerror=1/', "https://x.org/${x}/"):
        with pytest.raises(UserError, match="web address"):
            batch.export(tmp_path / "q", trials, QUESTIONS, picture, SALT, title="A study", format="qualtrics", pictures=address)
    with pytest.raises(UserError, match="no format 'qsf'"):
        batch.export(tmp_path / "q", trials, QUESTIONS, picture, SALT, title="A study", format="qsf")
    assert not list(tmp_path.iterdir())


class Tags(html.parser.HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.found, self.text, self.attributes = set(), [], []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.found.add(tag)
        self.attributes.append([name for name, _ in attrs])

    def handle_data(self, data):
        self.text.append(data)


@pytest.mark.parametrize("text", HOSTILE, ids=lambda text: ascii(text[:12]))
def test_hostile_texts_do_no_harm_and_are_not_lost(tmp_path, trials, text):
    question = Question.model_construct(name="trust", text=f"{text}", low=text[:500], high=SAFE, scale="vas")
    for format in batch.WRITERS:
        folder = out(tmp_path, trials, format, (question,), title=text[:500])
        for path in folder.rglob("*.csv"):
            with path.open(newline="", encoding="utf-8") as lines:
                csv.field_size_limit(10**8)
                cells = [cell for row in csv.reader(lines) for cell in row]
            assert not [c for c in cells if c[:1] in tuple(FORMULA_STARTS) and not is_number(c)], path.name
        card = (folder / "data_card.md").read_text()
        assert not Tags(card).found and "](" not in card.replace("\\]", "")
    machine = [json.loads(line) for line in (tmp_path / "csv" / "trials.jsonl").open(encoding="utf-8")]
    assert {row["text"] for row in machine if row["question"] == "trust"} == {text}
    with (tmp_path / "csv" / "trials.csv").open(newline="", encoding="utf-8") as lines:
        assert text in {unguarded(row["text"]) for row in csv.DictReader(lines)}

    survey = (tmp_path / "qualtrics" / "survey.txt").read_text()
    asked = survey.split("[[ID:trust]]\n")[1].split("\n\n")[0]
    assert Tags(asked).found <= {"img", "br"}
    assert not re.findall(r"\[\[(?!AdvancedFormat\]\]|ED:|Block:(?:Pictures|Attention \d)\]\]|Question:TE:SingleLine\]\]|ID:)", survey)
    assert set(re.findall(r"\$\{(.+?)\}", survey)) == {"lm://Field/1", "e://Field/target_1", "e://Field/target_2"}
    assert "".join(Tags(asked.split("<br>", 1)[1]).text).startswith(re.sub(r"[\r\n]+", "", text)[:40].rstrip())

    for path in (tmp_path / "surveyjs" / "surveys").glob("*.json"):
        titles = [e["title"] for page in json.loads(path.read_text())["pages"] for e in page["elements"] if e["name"].endswith("__trust")]
        assert {title.replace("\u200b", "") for title in titles} == {text}
        assert not any(re.search(r"[{<](?!\u200b)", title) for title in titles)
    tasks = json.loads((tmp_path / "label_studio" / "tasks.json").read_text())
    assert all(task["data"]["text_trust"].startswith(text) for task in tasks)
    values = {tag.get("value") for tag in xml.etree.ElementTree.parse(tmp_path / "label_studio" / "config.xml").getroot()}
    assert values == {"$image", "$text_trust", None}
    listed = json.loads(next((tmp_path / "jspsych" / "lists").glob("*.json")).read_text())
    assert text in {q["text"] for trial in listed["trials"] for q in trial["questions"]}
    page = (tmp_path / "jspsych" / "index.html").read_text()
    assert "INTEGRITY" not in page and page.count("sha384-") == 3 and Tags(page).found == {"html", "head", "meta", "title", "link", "script", "body"}


def test_hostile_answers_come_in_whole_and_go_out_harmless(tmp_path):
    rows = [{"participant": f"P{n}", "note": text} for n, text in enumerate(HOSTILE)]
    (tmp_path / "in.json").write_text(json.dumps(rows))
    pd.DataFrame([{"participant": r["participant"], "rating": r["note"]} for r in rows]).to_csv(tmp_path / "in.csv", index=False)
    for name in ("in.json", "in.csv"):
        for kind in ("parquet", "csv"):
            with long_table(tmp_path / f"{name}.{kind}") as put:
                for piece in alone(Reading(tmp_path / name), {}):
                    put(piece)
        assert pd.read_parquet(tmp_path / f"{name}.parquet")["text"].tolist() == HOSTILE
        with (tmp_path / f"{name}.csv").open(newline="", encoding="utf-8") as lines:
            found = list(csv.DictReader(lines))
        assert [unguarded(row["text"]) for row in found] == HOSTILE
        assert not [c for row in found for c in row.values() if c[:1] in tuple(FORMULA_STARTS) and not is_number(c)]
    (tmp_path / "half.json").write_text(json.dumps([{"participant": "P\ud83d", "not\udc00": "half \ud83d and 👩"}]))
    [piece] = alone(Reading(tmp_path / "half.json"), {})
    assert piece[["question", "text"]].to_numpy().tolist() == [["not?", "half ? and 👩"]], "half a character is none"


def test_hostile_texts_in_a_study_do_no_harm_in_its_report(tmp_path):
    """Title, question, claims and wording of a study, and the names of its pictures."""
    files = Files((tmp_path / "files").as_uri())
    rows = [("one", "up", arm, 0, dose, files.put(picture(None)), 0.0) for arm, dose in (("null", 0.0), ("treated", 1.5), ("sham", 1.5))]
    columns = ["image", "direction", "arm", "draw", "dose", "pixels_sha256", "judge_dose"]
    for text in (text[:80] for text in HOSTILE):
        long = f"{text} and so on"
        claim = {"id": "H1", "claim": long, "direction": "up", "question": "trust", "primary": True}
        question = {"name": "trust", "text": long, "low": text[:80], "high": SAFE}
        study = Study.model_validate({
            "study": "hostile", "title": long, "question": long, "directions": {"up": {"hold": ["skin"]}},
            "survey": {"questions": [question]}, "hypotheses": [claim],
        })  # fmt: skip
        shown = pd.DataFrame(rows, columns=columns).assign(image=f"{text[:40]}.png")
        said = render(reading(study, {}, files, stimuli=shown, provenance=[(text, text)]))
        page = Tags(said)
        assert not page.found & {"script", "iframe", "object", "embed", "link", "b"}, text
        assert all(set(attrs) <= ATTRIBUTES for attrs in page.attributes), "no handler of an event comes in"
        words = " ".join("".join(page.text).split())
        assert " ".join(long.split()) in words, "and it is there to be read, whole"
    line = " ".join(" ".join(HOSTILE[:-1]).split())
    study = Study.model_validate({**study.model_dump(exclude_unset=True), "title": line[:200], "hypotheses": [{**claim, "claim": line[:390]}]})
    printed = reading(study, {})
    said = " ".join(" ".join(one.get_text() for page in pdf._report(printed).pages for one in page.texts).split())
    assert "".join(line[:390].split()) in "".join(said.split()) and pdf.report_pdf(printed).startswith(b"%PDF")


@pytest.mark.browser
@pytest.mark.parametrize(("shown", "questions"), [("trials", QUESTIONS), ("compared", SEVERAL)])
def test_the_jspsych_bundle_runs_in_chromium_and_comes_back(tmp_path, request, shown, questions):
    from playwright.sync_api import sync_playwright

    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or pytest.skip("Chromium is not installed")
    trials = request.getfixturevalue(shown)
    questions = (questions[0].model_copy(update={"text": "<b>How</b> trustworthy? ${x}"}), *questions[1:])
    asked, said = truth(trials, questions)
    said = {key: value if isinstance(value, str) else round(value) for key, value in said.items()}
    folder = out(tmp_path, trials, "jspsych", questions)
    serve = functools.partial(Quiet, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), serve) as server, sync_playwright() as play:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        browser = play.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"])
        page = browser.new_page(accept_downloads=True)
        told = []
        page.on("console", lambda message: told.append(message.text) if message.type in ("error", "warning") else None)
        page.on("pageerror", lambda error: told.append(str(error)))
        page.on("request", lambda request: told.append(request.url) if "127.0.0.1" not in request.url else None)
        page.goto(f"http://127.0.0.1:{server.server_port}/index.html?assignment=aa11")
        page.get_by_text("This link is not complete").wait_for()
        files = []
        for code in ("aa11", "bb22", "cc33"):
            page.goto(f"http://127.0.0.1:{server.server_port}/index.html?assignment={code}&participant=person-{code}")
            for position, own in asked[asked["assignment"] == code].groupby("position"):
                page.locator("fieldset").first.wait_for()
                assert page.get_by_role("button", name="Continue").is_disabled()
                if position == 0:
                    assert page.get_by_text("<b>How</b> trustworthy? ${x}").is_visible()
                    assert page.locator("img").evaluate_all("all => all.map(i => i.naturalWidth)") == [1] * len(own["files"].iloc[0])
                    if kept := os.environ.get("CONTRAFACT_SCREENSHOTS"):
                        page.screenshot(path=Path(kept) / f"jspsych_bundle_{shown}.png")
                for number, (question, scale) in enumerate(own[["question", "scale"]].itertuples(index=False)):
                    answer, field = str(said[code, position, question]), page.locator("fieldset").nth(number)
                    if scale in ("vas", "text"):
                        field.locator("input, textarea").fill(answer)
                    else:
                        field.get_by_label(answer, exact=True).press("Space")
                button = page.get_by_role("button", name="Continue")
                if (position, code) == (5, code):
                    with page.expect_download() as download:
                        button.press("Enter")
                    files.append(tmp_path / f"{code}.json")
                    download.value.save_as(files[-1])
                else:
                    button.press("Enter")
                    page.wait_for_function("() => document.querySelector('button')?.disabled")
        browser.close()
        server.shutdown()
    assert told == []
    merged = tmp_path / "all.json"
    merged.write_text("\n".join(path.read_text() for path in files))
    answers = back(merged, asked, said, format="jspsych")
    assert answers["response_ms"].between(1, 60_000).all()


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *arguments):
        pass

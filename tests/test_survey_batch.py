"""A batch goes out as files and its answers come back, each row with its fate."""

import csv
import zipfile

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from contrafact.errors import UserError
from contrafact.study.schema import Question
from contrafact.survey import batch
from contrafact.survey.formats import Reading, guard
from contrafact.survey.ledger import Ledger

SALT = b"one study's salt"
QUESTIONS = (
    Question(name="appeal", text="How appealing is this person?"),
    Question(name="trust", text="=1+1 How far would you trust them?", low="-never", high="@always", scale="likert7"),
)


@pytest.fixture
def trials() -> pd.DataFrame:
    rows = []
    for code in ("aa11", "bb22"):
        rows += [(code, 0, "image", "7/treated/1.5", np.nan), (code, 1, "attention", None, 30.0)]
        rows += [(code, 2, "image", "9/sham/-1.5", np.nan)]
    return pd.DataFrame(rows, columns=["assignment", "position", "kind", "stimulus", "target"])


@pytest.fixture
def expected(trials) -> pd.DataFrame:
    return batch.asked(trials, QUESTIONS)


def answers_file(folder, text: str | bytes):
    path = folder / "answers.csv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def read_answers(reading, expected, salt):
    """The answers that a file adds to a batch, the fate of its rows, and how many rows each person has."""
    ledger = Ledger(salt)
    ledger.ask(expected)
    fate, rows_of = ledger.read(reading)
    pieces = list(ledger.new())
    return (pd.concat(pieces) if pieces else pd.DataFrame(columns=["assignment", "position", "question", "value"])), fate, rows_of


HEADER = "assignment,position,question,value,response_ms,participant\n"


def test_what_goes_out_comes_back(tmp_path, trials, expected):
    batch.export(tmp_path / "out", trials, QUESTIONS, lambda key: f"png {key}".encode(), SALT, title="A study")
    folder = tmp_path / "out"
    template = pd.read_csv(folder / "answers_template.csv", dtype={"position": int})
    assert len(template) == len(expected) == 10
    rng = np.random.default_rng(1)
    likert = template["question"] == "trust"
    template["value"] = np.where(likert, rng.integers(1, 8, 10), rng.integers(0, 101, 10)).astype(float)
    template["response_ms"] = rng.integers(400, 4000, 10).astype(float)
    template["participant"] = template["assignment"].map({"aa11": "P-1", "bb22": "P-2"})
    template.to_csv(tmp_path / "answers.csv", index=False)

    answers, fate, _ = read_answers(Reading(tmp_path / "answers.csv"), expected, SALT)
    assert (fate.rows, fate.accepted, fate.problems) == (10, 10, ())
    back = answers.assign(position=answers["position"] + 1)
    columns = ["assignment", "position", "question", "value", "response_ms"]
    pd.testing.assert_frame_equal(back[columns], template[columns], check_dtype=False)
    assert "P-1" not in answers.to_csv()
    assert answers["pid_hash"].nunique() == 2


def test_file_names_and_tables_tell_nothing_of_arm_or_dose(tmp_path, trials):
    batch.export(tmp_path / "out", trials, QUESTIONS, lambda key: str(key).encode(), SALT, title="A study")
    folder = tmp_path / "out"
    text = (folder / "trials.csv").read_text() + " ".join(p.name for p in folder.rglob("*"))
    assert not any(word in text for word in ("treated", "sham", "1.5", "stimulus"))
    with (folder / "trials.csv").open(newline="") as lines:
        rows = list(csv.DictReader(lines))
    pictures = {row["file"] for row in rows if row["file"]}
    assert {(folder / name).read_bytes() for name in pictures} == {b"7/treated/1.5", b"9/sham/-1.5"}
    assert pictures.isdisjoint(
        f"images/{batch.keyed(b'another salt', 'picture', key, length=20)}.png" for key in trials["stimulus"]
    )
    assert [row["text"] for row in rows if row["question"] == "attention"] == [
        "This one checks attention: please answer 30."
    ] * 2


def test_no_cell_is_a_formula(tmp_path, trials):
    batch.export(tmp_path / "out", trials, QUESTIONS, lambda key: b"", SALT, title="A study")
    folder = tmp_path / "out"
    for name in ("trials.csv", "answers_template.csv"):
        with (folder / name).open(newline="") as lines:
            cells = [cell for row in csv.reader(lines) for cell in row]
        assert not [cell for cell in cells if cell[:1] in tuple("=+-@\t\r")]
    assert "'=1+1 How far" in (folder / "trials.csv").read_text()


@given(st.text(alphabet="=+-@'\t ax1,;é", max_size=8))
def test_the_guard_is_harmless_and_can_be_taken_off(text):
    cell = str(guard.guarded(text))
    assert cell[:1] not in ("=", "+", "-", "@", "\t") or guard.is_number(cell)
    assert guard.unguarded(cell) == text


def test_a_zip_holds_the_same_files(tmp_path, trials):
    missing = ("The breaks: build them there.",)
    assert batch.export(tmp_path / "out.zip", trials, QUESTIONS, lambda key: b"x", SALT, title="A study", missing=missing) == [*missing]
    packed = tmp_path / "out.zip"
    names = [name for name in zipfile.ZipFile(packed).namelist() if not name.endswith("/")]
    assert sorted(name.split("/")[-1] for name in names if "images" not in name) == [
        "answers_template.csv",
        "data_card.md",
        "trials.csv",
        "trials.jsonl",
    ]
    card = next(name for name in names if name.endswith("data_card.md"))
    assert missing[0] in zipfile.ZipFile(packed).read(card).decode()
    assert sum("images/" in name for name in names) == 2
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out.zip"], "nothing half-written is left"


def test_an_existing_folder_is_not_written_over(tmp_path, trials):
    (tmp_path / "out").mkdir()
    with pytest.raises(UserError, match="exists already"):
        batch.export(tmp_path / "out", trials, QUESTIONS, lambda key: b"", SALT, title="A study")


def test_a_picture_that_is_gone_leaves_nothing_behind(tmp_path, trials):
    def gone(key):
        raise KeyError(key)

    with pytest.raises(KeyError):
        batch.export(tmp_path / "out", trials, QUESTIONS, gone, SALT, title="A study")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "raw",
    [
        "\ufeff" + HEADER + "aa11,1,appeal,42.5,900,P\n",
        (HEADER + "aa11,1,appeal,42.5,900,P\n").replace(",", ";"),
        'assignment;position;question;value;participant\n aa11 ;1;appeal;"42,5";P\n',
        ("\ufeff" + HEADER + "aa11,1,appeal,42.5,900,P\r\n").replace(",", "\t").encode("utf-16-le"),
        "Participant,Value,extra,Question,Position,Assignment\r\nP,42.5,x,appeal,1,aa11\r\n\r\n",
        HEADER + "'aa11,1,appeal,42.5,,P\n".replace("'aa11", "aa11"),
    ],
)
def test_spreadsheets_write_it_their_way(tmp_path, expected, raw):
    answers, fate, _ = read_answers(Reading(answers_file(tmp_path, raw)), expected, SALT)
    assert (fate.rows, fate.accepted) == (1, 1)
    assert answers.loc[0, ["assignment", "position", "question", "value"]].tolist() == ["aa11", 0, "appeal", 42.5]


@pytest.mark.parametrize(
    ("row", "problem"),
    [
        ("aa11,1,appeal,101,,P", "row 2, value: 101 is outside 0 to 100"),
        ("aa11,1,appeal,many,,P", "row 2, value: 'many' is not a number"),
        ("aa11,1,appeal,nan,,P", "row 2, value: 'nan' is not a number"),
        ("aa11,1,trust,3.5,,P", "row 2, value: 3.5 is not one of 1, 2, ... 7"),
        ("aa11,1,trust,0,,P", "row 2, value: 0 is outside 1 to 7"),
        ("aa11,1,appeal,5,-4,P", "row 2, response_ms: -4 is outside"),
        ("aa11,1,appeal,5,slow,P", "row 2, response_ms: 'slow' is not a number"),
        ("aa11,9,appeal,5,,P", "row 2, position: 9 is not in this assignment"),
        ("aa11,1.5,appeal,5,,P", "row 2, position: '1.5' is not a whole number"),
        ("aa11,1,apeal,5,,P", "row 2, question: 'apeal' is not asked there, but appeal, trust"),
        ("aa11,2,appeal,5,,P", "row 2, question: 'appeal' is not asked there, but attention"),
        ("aa11,1,appeal,5,,", "row 2, participant: empty"),
        ("aa11,1,appeal,5", "row 2, participant: empty"),
    ],
)
def test_a_bad_row_is_named_with_its_column_and_refuses_the_file(tmp_path, expected, row, problem):
    path = answers_file(tmp_path, HEADER + row + "\n")
    _, fate, _ = read_answers(Reading(path), expected, SALT)
    assert (fate.rows, fate.accepted, fate.invalid) == (1, 0, 1)
    assert fate.problems[0].startswith(problem)
    with pytest.raises(UserError, match="Nothing was written"):
        fate.refuse_invalid(path.name)


def test_every_row_has_one_fate(tmp_path, expected):
    rows = [
        "aa11,1,appeal,40,,P",
        "aa11,1,appeal,40,,P",  # the same again
        "aa11,1,trust,,,P",  # not answered
        "zz99,1,appeal,40,,P",  # another batch's
        "aa11,3,appeal,40,,Q",  # somebody else's
        "bb22,1,appeal,40,,P",  # a second assignment for P
        "aa11,1,appeal,41,,P",  # not the same again
    ]
    text = HEADER + "\n".join(rows)
    _, fate, _ = read_answers(Reading(answers_file(tmp_path, text)), expected, SALT)
    parts = (fate.accepted, fate.duplicates, fate.unanswered, fate.unmatched, fate.invalid)
    assert parts == (1, 1, 1, 1, 3) and sum(parts) == fate.rows
    told = "\n".join(fate.problems)
    assert "row 5, assignment: 'zz99' is not of this batch" in told
    assert "row 6, participant: this assignment already belongs" in told
    assert "row 7, participant: this person already answered assignment 'aa11'" in told
    assert "row 8, value: 41 here, but 40 in row 2" in told


def test_a_second_import_adds_nothing_and_contradictions_are_refused(tmp_path, expected):
    path = answers_file(tmp_path, HEADER + "aa11,1,appeal,40,,P\naa11,1,trust,3,,P\n")
    first, _, _ = read_answers(Reading(path), expected, SALT)
    known = expected.merge(first.drop(columns="response_ms"), on=["assignment", "position", "question"], how="left")
    again, fate, _ = read_answers(Reading(path), known, SALT)
    assert again.empty and (fate.accepted, fate.duplicates, fate.invalid) == (0, 2, 0)
    _, fate, _ = read_answers(Reading(answers_file(tmp_path, HEADER + "aa11,1,appeal,39,,P\n")), known, SALT)
    assert fate.problems == ("row 2, value: 39 here, but 40 in an earlier import, for the same answer",)
    _, fate, _ = read_answers(Reading(answers_file(tmp_path, HEADER + "aa11,3,appeal,39,,R\n")), known, SALT)
    assert "already belongs to another participant" in fate.problems[0]


@pytest.mark.parametrize(
    ("raw", "sentence"),
    [
        (b"", "is empty"),
        (b"assignment,position,question,valu\n", "the column 'value' is missing \\('valu' is there\\)"),
        (b"\x89PNG\r\n\x1a\n\x00\x00", "line 1, byte 1: not text in UTF-8"),
        (b"PK\x03\x04\x14\x00", "zip archive"),
        ((HEADER + "aa11,1,appeal,5,,P,x\n").encode(), "row 2, column 7: the row has 7 cells where the header has 6"),
        (b"assignment,position,question,value,value\n", "'value' stands there twice"),
        (b'assignment,position,question,value\n"aa11', "not a CSV"),
    ],
)
def test_a_file_that_is_no_answers_file_is_refused_whole(tmp_path, expected, raw, sentence):
    with pytest.raises(UserError, match=sentence):
        read_answers(Reading(answers_file(tmp_path, raw)), expected, SALT)
    with pytest.raises(UserError, match="cannot be read"):
        read_answers(Reading(tmp_path / "absent.csv"), expected, SALT)

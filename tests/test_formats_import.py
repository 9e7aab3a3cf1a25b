"""Files in: every format to one long table, and the fate of every row. Fixtures are typed here; real files, where they
lie beside the repository, are counted by hand."""

import gzip
import json
import os
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pandas as pd
import pytest

from contrafact.cli import _run
from contrafact.errors import UserError
from contrafact.survey.formats import Reading, alone, load_mapping

DATA = Path(os.environ.get("CONTRAFACT_DATA") or Path(__file__).resolve().parents[2] / "shared" / "data")


def read(path, **options):
    """The whole long table and the fate."""
    reading = Reading(Path(path), **options)
    pieces = list(alone(reading, {}))
    return pd.concat(pieces) if pieces else pd.DataFrame(), reading.fate


def write(tmp_path, text, name="file.csv"):
    path = tmp_path / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def told(fate):
    """What is not zero among the counts that add up."""
    names = ("accepted", "duplicates", "previews", "unfinished", "unanswered", "unmatched", "invalid")
    assert sum(getattr(fate, name) for name in names) == fate.rows
    return {name: count for name in names if (count := getattr(fate, name))}


PROLIFIC = """Submission id,Participant id,Status,Started at,Completed at,Time taken,Completion code,Total approvals,Age,Sex
65f0aa10c0ffee0000000001,5e1b00000000000000000042,APPROVED,2026-03-02T09:14:07.221000Z,2026-03-02T09:25:40Z,692.8,K7,311,34,Female
65f0aa10c0ffee0000000002,5e1b00000000000000000043,RETURNED,2026-03-02T09:15:00.100000Z,,,,88,CONSENT_REVOKED,CONSENT_REVOKED
65f0aa10c0ffee0000000003,5e1b00000000000000000044,TIMED-OUT,2026-03-02T09:15:00Z,,,,8,DATA_EXPIRED,Male
65f0aa10c0ffee0000000004,5e1b00000000000000000045,REJECTED,2026-03-02T09:15:00Z,2026-03-02T09:16:00Z,60,NOCODE,8,20,Male
65f0aa10c0ffee0000000005,5e1b00000000000000000046,AWAITING REVIEW,2026-03-02T09:15:00Z,2026-03-02T09:26:00Z,660,K7,9,21,Male
65f0aa10c0ffee0000000001,5e1b00000000000000000042,APPROVED,2026-03-02T09:14:07.221000Z,2026-03-02T09:25:40Z,692.8,K7,311,34,Female
"""


def test_prolific_keeps_what_was_submitted_and_the_reason_of_what_is_missing(tmp_path):
    table, fate = read(write(tmp_path, PROLIFIC))
    assert fate.format == "prolific" and fate.participants == 5
    assert told(fate) == {"accepted": 3, "unfinished": 2, "duplicates": 1}
    assert not table["text"].str.contains("CONSENT|EXPIRED|5e1b").any()
    assert table[table["question"] == "Age"]["value"].tolist() == [34, 20, 21]
    assert table["ended"].iloc[0] == pd.Timestamp("2026-03-02T09:25:40Z")
    assert set(fate.warnings) == {
        "people who revoked consent to their demographics, which are missing: 1",
        "people whose demographics expired and are missing: 1",
        "rejected submissions, kept (payment and exclusion are two decisions): 1",
        "submissions without a completion code: 1",
    }
    old = PROLIFIC.replace("Submission id,Participant id,Status,Started at,Completed at,Time taken", "session_id,participant_id,status,started_datetime,completed_date_time,time_taken")
    old = old.replace("Completion code,Total approvals", "entered_code,num_approvals")
    again, aged = read(write(tmp_path, old, "old.csv"))
    assert told(aged) == told(fate)
    pd.testing.assert_frame_equal(again, table)


MTURK = """"HITId","Title","AssignmentId","WorkerId","AssignmentStatus","AcceptTime","SubmitTime","Input.image","Answer.trust","Answer.kind.yes","Answer.kind.no","Answer.workerId","Answer.taskAnswers","Approve","Reject"
"3H1","a title
in two lines","3A1","AWORKER1","Approved","Tue Mar 05 13:33:57 PST 2019","Tue Jul 09 13:35:20 PDT 2019","a01.png","5","true","false","AWORKER1","[{""mood"":{""sad"":false,""glad"":true},""note"":""fine""}]","",""
"3H1","t","3A2","AWORKER2","Rejected","Tue Mar 05 13:33:57 PST 2019","Tue Mar 05 13:35:20 PST 2019","a01.png","2","false","true","AWORKER2","",""
"3H2","t","ASSIGNMENT_ID_NOT_AVAILABLE","","","","","a02.png","1","","","","",""
"""


def test_mturk_archives_are_read_with_their_own_zones_and_forms(tmp_path):
    table, fate = read(write(tmp_path, MTURK))
    assert fate.format == "mturk" and told(fate) == {"accepted": 2, "previews": 1} and fate.participants == 2
    first = table[table["row"] == 2].set_index("question")["text"].to_dict()
    assert first == {"trust": "5", "kind": "yes", "mood": "glad", "note": "fine"}
    assert table["started"].iloc[0] == datetime(2019, 3, 5, 21, 33, 57, tzinfo=UTC)
    assert table["ended"].iloc[0] == datetime(2019, 7, 9, 20, 35, 20, tzinfo=UTC)
    assert set(table["stimulus"]) == {"a01.png"} and not table["text"].str.contains("AWORKER").any()
    assert any("rejected" in warning for warning in fate.warnings)


HEAD = ["StartDate", "EndDate", "Status", "IPAddress", "Progress", "Finished", "ResponseId", "RecipientEmail", "DistributionChannel",
        "1_trust", "2_trust", "1_trust_t_Page Submit", "mood", "PROLIFIC_PID"]  # fmt: skip
LABELS = ["Start Date", "End Date", "Response Type", "IP Address", "Progress", "Finished", "Response ID", "Recipient Email",
          "Distribution Channel", "How\ntrustworthy?", "How\ntrustworthy?", "Timing - Page Submit", "Mood?", "PROLIFIC_PID"]  # fmt: skip
IDS = ["startDate", "endDate", "status", "ipAddress", "progress", "finished", "_recordId", "recipientEmail", "distributionChannel",
       "1_QID1", "2_QID1", "1_QID2_PAGE_SUBMIT", "QID3_TEXT", "PROLIFIC_PID"]  # fmt: skip
PEOPLE = [
    ["2026-03-02 09:14:07", "2026-03-02 09:25:40", "0", "192.0.2.1", "100", "1", "R_1", "a@b.org", "anonymous", "71", "38", "2.25", "NA", "5e1b42"],
    ["2026-03-02 09:14:07", "2026-03-02 09:15:40", "0", "192.0.2.2", "40", "0", "R_2", "", "anonymous", "50", "", "", "", "5e1b43"],
    ["2026-03-02 09:14:07", "2026-03-02 09:15:40", "1", "192.0.2.3", "100", "1", "R_3", "", "preview", "1", "1", "", "", ""],
    ["2026-03-02 09:14:07", "2026-03-02 09:25:40", "0", "192.0.2.1", "100", "1", "R_1", "a@b.org", "anonymous", "71", "38", "2.25", "NA", "5e1b42"],
]  # fmt: skip


def qualtrics(header_rows, words=False, separator=","):
    ids = [json.dumps({"ImportId": name, **({"timeZone": "America/Denver"} if name.endswith("Date") else {})}) for name in IDS]
    people = [list(row) for row in PEOPLE]
    if words:
        for row in people:
            row[2] = {"0": "IP Address", "1": "Survey Preview"}[row[2]]
            row[5] = {"0": "False", "1": "True"}[row[5]]
    rows = [HEAD, LABELS, ids][:header_rows] + people
    return "\r\n".join(separator.join('"' + cell.replace('"', '""') + '"' for cell in row) for row in rows) + "\r\n"


@pytest.mark.parametrize("header_rows", [1, 2, 3])
@pytest.mark.parametrize("words", [False, True])
def test_qualtrics_of_every_header_is_one_table(tmp_path, header_rows, words):
    table, fate = read(write(tmp_path, qualtrics(header_rows, words)))
    assert fate.format == "qualtrics" and told(fate) == {"accepted": 1, "unfinished": 1, "previews": 1, "duplicates": 1}
    assert fate.participants == 2 and set(fate.dropped_columns) == {"IPAddress", "RecipientEmail", "PROLIFIC_PID"}
    first = table[table["participant"] == "p000001"]
    assert first["question"].tolist() == ["trust", "trust", "mood"] and first["position"].tolist() == ["#1", "#2", ""]
    assert first["text"].tolist() == ["71", "38", "NA"], "what a person types is not missing"
    assert first["response_ms"].iloc[0] == 2250
    zone = "2026-03-02T16:25:40Z" if header_rows == 3 else "2026-03-02T09:25:40Z"
    assert first["ended"].iloc[0] == pd.Timestamp(zone)


def test_what_qualtrics_adds_to_answers_is_none(tmp_path):
    text = "StartDate,Progress,ResponseId,Q1,Q1_DO,BL_1_DO_Q8,Q_RecaptchaScore,Q2 - Topics\n2026-03-02 09:14:07,100,R_1,5,1|2,3,0.3,Other\n"
    table, fate = read(write(tmp_path, text))
    assert fate.format == "qualtrics" and table["question"].tolist() == ["Q1"]
    assert fate.warnings == ("responses with a reCAPTCHA score below .5, kept for the frozen rules to judge: 1",)


def test_the_oldest_header_of_qualtrics_is_known(tmp_path):
    text = "V1,V2,V3,V4,V5,V6,V7,V8,V9,V10,Q1,\nResponseID,ResponseSet,Name,ExternalDataReference,EmailAddress,IPAddress,Status,StartDate,EndDate,Finished,How?,\n"
    text += "R_1,Default,Ann,,a@b.org,192.0.2.1,0,2014-03-02 09:14:07,2014-03-02 09:25:40,1,5,\n"
    table, fate = read(write(tmp_path, text))
    assert fate.format == "qualtrics" and told(fate) == {"accepted": 1}
    assert table["text"].tolist() == ["5"] and {"V3", "V5", "V6"} <= set(fate.dropped_columns)


JSPSYCH = [
    {"trial_type": "preload", "trial_index": 0, "success": True},
    {"trial_type": "image-slider-response", "trial_index": 1, "rt": 2310, "stimulus": "a01.png", "response": 71, "subject_id": "S1"},
    {"trial_type": "survey-likert", "trial_index": 2, "rt": 900, "response": {"Q0": 3, "deep": {"x": "yes", "none": None}}},
    {"trial_type": "html-keyboard-response", "trial_index": 3, "rt": None, "stimulus": "+", "response": None},
]


def test_jspsych_of_every_age_and_shape(tmp_path):
    table, fate = read(write(tmp_path, json.dumps(JSPSYCH), "8.json"))
    assert fate.format == "jspsych" and told(fate) == {"accepted": 2, "unanswered": 2} and fate.participants == 1
    assert table["question"].tolist() == ["image-slider-response", "Q0", "deep.x"] and table["text"].tolist() == ["71", "3", "yes"]
    assert table["response_ms"].tolist() == [2310, 900, 900] and fate.dropped_columns == ("subject_id",)

    lines = "\n".join(json.dumps([{**row, "subject_id": f"S{n}"} for row in JSPSYCH]) for n in range(3))
    _, several = read(write(tmp_path, lines, "jatos.txt"))
    assert several.rows == 12 and several.participants == 3

    csv = '"trial_type","trial_index","rt","stimulus","button_pressed","key_press","responses"\r\n'
    person = '"image-button-response","0","812","a.png","1","",""\r\n"image-keyboard-response","1","null","a.png","","null",""\r\n'
    person += '"survey-text","2","900","","","","{""Q0"":""a, b""}"\r\n'
    table, sixth = read(write(tmp_path, csv + person + person.replace("812", "813") + person, "6.csv"))
    assert told(sixth) == {"accepted": 4, "unanswered": 2, "duplicates": 3} and sixth.participants == 2
    assert table["text"].tolist()[:2] == ["1", "a, b"]

    cut = json.dumps(JSPSYCH)[:-20]
    with pytest.raises(UserError, match="record 4: not JSON; the file may have been cut off"):
        read(write(tmp_path, cut, "cut.json"))


def test_attention_trials_that_share_a_number_with_others_are_no_repeats(tmp_path):
    rows = [
        {"prolificID": "P", "trialIdx": 4, "rt": 900, "response": 71, "comprehensionCheck": 0, "comprehensionCheckRequestedResponse": None},
        {"prolificID": "P", "trialIdx": 4, "rt": 950, "response": 60, "comprehensionCheck": 1, "comprehensionCheckRequestedResponse": 100},
    ]  # fmt: skip
    table, fate = read(write(tmp_path, json.dumps(rows), "own.json"))
    assert told(fate) == {"accepted": 2} and table["target"].tolist()[1] == 100 and table["question"].iloc[1] == "comprehensioncheck"
    assert "attention trials missed by more than 5 points: 1" in fate.warnings


def test_surveyjs_and_label_studio(tmp_path):
    people = [{"participant": "P1", "trust": 5, "choice": "b01", "email": "a@b.org", "grid": {"warm": 2}}, {"participant": "P2"}]
    table, fate = read(write(tmp_path, json.dumps(people), "results.json"))
    assert fate.format == "surveyjs" and told(fate) == {"accepted": 1, "unanswered": 1}
    assert dict(zip(table["question"], table["text"], strict=True)) == {"trust": "5", "choice": "b01", "grid.warm": "2"}
    assert set(fate.dropped_columns) == {"email"}
    with pytest.raises(UserError, match="definition of a survey"):
        read(write(tmp_path, json.dumps({"pages": [{"name": "p"}]}), "survey.json"))

    def annotation(number, to_name, **more):
        result = [{"from_name": "trust", "to_name": to_name, "type": "rating", "value": {"rating": 5}}]
        return {"id": number, "completed_by": 3, "lead_time": 6.4, "created_at": "2026-03-02T09:20:00Z", "result": result, **more}

    tasks = [
        {"id": 1, "data": {"image_a": "https://x.org/a.png"}, "annotations": [annotation(1, "image_a"), annotation(2, ["image_a"], was_cancelled=True)], "predictions": [{"score": 1}]},
        {"id": 2, "data": {"image_a": "https://x.org/b.png"}, "annotations": [annotation(3, ["image_a"], completed_by={"id": 4, "email": "a@b.org"})]},
        {"id": 3, "data": {"image_a": "https://x.org/c.png"}, "annotations": []},
    ]  # fmt: skip
    table, fate = read(write(tmp_path, json.dumps(tasks), "tasks.json"))
    assert fate.format == "label_studio" and told(fate) == {"accepted": 2, "unfinished": 1, "unanswered": 1}
    assert table["value"].tolist() == [5, 5] and table["stimulus"].tolist() == ["https://x.org/a.png", "https://x.org/b.png"]
    assert table["response_ms"].tolist() == [6400, 6400] and table["participant"].nunique() == 2
    short = "annotation_id,annotator,created_at,id,image,lead_time,trust\n7,3,2026-03-02T09:20:00Z,1,https://x.org/a.png,6.4,4\n"
    table, fate = read(write(tmp_path, short, "short.csv"))
    assert fate.format == "label_studio" and table["text"].tolist() == ["4"] and table["stimulus"].tolist() == ["https://x.org/a.png"]


def test_any_other_table_by_a_mapping(tmp_path):
    text = "Event Index,UTC Date,Participant Private ID,Participant Status,Zone Type,Response,Reaction Time,image\n"
    text += "1,2026-03-02T09:20:00Z,77,complete,response_slider,71,1810.5,a.png\n2,,77,complete,timelimit,,,\n"
    text += "3,2026-03-02T09:20:00Z,78,preview,response_slider,71,1810.5,a.png\nEND OF FILE,,,,,,,\n"
    mapping = "format: gorilla\nparticipant: Participant Private ID\nvalue: Response\nresponse_ms: Reaction Time\nstimulus: image\n"
    mapping += "ended: UTC Date\nkeep: {Zone Type: [response_slider]}\npreview: {Participant Status: [preview]}\n"
    columns = load_mapping(write(tmp_path, mapping, "map.yaml"))
    table, fate = read(write(tmp_path, text), columns=columns)
    assert fate.format == "gorilla" and told(fate) == {"accepted": 1, "previews": 1}
    assert table[["text", "stimulus", "response_ms"]].to_numpy().tolist() == [["71", "a.png", 1810.5]]
    with pytest.raises(UserError, match=r"mapping is missing \('Response' is there\)"):
        read(tmp_path / "file.csv", columns=load_mapping(write(tmp_path, mapping.replace("value: Response", "value: Respons"), "m.yaml")))
    for wrong, sentence in (("participant: x\n", "not both and not neither"), ("person: x\nvalue: y\n", "participant: Field required"), ("- a\n", "file")):
        with pytest.raises(UserError, match=sentence):
            load_mapping(write(tmp_path, wrong, "wrong.yaml"))


LONG = "rater_id,face_id,trait,rating,Email\nR1,f1,trust,3,a@b.org\nR1,f2,trust,4,a@b.org\nR2,f1,warm,5,\n"


@pytest.mark.parametrize(
    "raw",
    [
        LONG,
        "\ufeff" + LONG,
        LONG.replace(",", ";"),
        LONG.replace(",", "\t").encode("utf-16"),
        LONG.replace(",", "\t").encode("utf-16-le"),
        "sep=;\r\n" + LONG.replace(",", ";").replace("\n", "\r\n"),
        gzip.compress(LONG.encode(), mtime=0),
        LONG + ",,,,\n\n",
        LONG.replace("rating,Email\n", "rating,Email,\n").replace("org\n", "org,\n").replace("5,\n", "5,,\n"),
    ],
)
def test_tables_as_spreadsheets_write_them(tmp_path, raw):
    table, fate = read(write(tmp_path, raw))
    assert fate.format == "csv" and told(fate) == {"accepted": 3} and fate.participants == 2
    assert table[["participant", "stimulus", "question", "value"]].to_numpy().tolist() == [
        ["p000001", "f1", "trust", 3], ["p000001", "f2", "trust", 4], ["p000002", "f1", "warm", 5],
    ]  # fmt: skip
    assert "a@b.org" not in table.to_csv()


@pytest.mark.parametrize(
    ("raw", "sentence"),
    [
        (b"", "is empty"),
        (b"   \n", "is empty"),
        (LONG + "R3,f1,trust,3,,extra\n", "row 5, column 6: the row has 6 cells where the header has 5"),
        (LONG + 'R3,"f1,trust,3,\n', "row 5: not a CSV row"),
        (b"\x00\x01\x02\x03\xff\xfe binary", "not text"),
        (b"PK\x03\x04.....", "zip archive"),
        (gzip.compress(LONG.encode() * 2000, mtime=0)[:-30], "damaged"),
        ("a,b\n1,2\n", "no column says who answered"),
        ("[1, 2]", "stands where an object should"),
        ('[{"rt": 1, "response": 2}, {"rt": ', "record 2: not JSON"),
        ("[" * 100_000, "not JSON"),
    ],
)
def test_what_cannot_be_read_is_refused_with_its_place(tmp_path, raw, sentence):
    with pytest.raises(UserError, match=sentence):
        read(write(tmp_path, raw))


def test_what_can_be_read_with_doubt_is_read_with_a_warning(tmp_path):
    text = 'rater_id,rating,rating,note\nR1,3,4,"café, two\nlines"\nR2,7-Jan,4\n5.1E+23,4,4,x\n,4,4,x\n'
    _, fate = read(write(tmp_path, text.encode("latin-1")))
    assert told(fate) == {"accepted": 2, "invalid": 2}
    said = "\n".join(fate.warnings + fate.problems)
    assert "line 2, byte 12: not UTF-8; the file is read as Windows-1252" in said
    assert "row 1, column 3: 'rating' stands there twice" in said
    assert "row 3, column 4 and after: cells are missing" in said
    assert "row 3, response: '7-Jan' looks like a date" in said
    assert "row 4, participant: '5.1E+23' is an id that a spreadsheet has turned into a number" in said
    assert "row 5, participant: empty" in said


def test_long_json_is_a_long_table_and_na_is_missing(tmp_path):
    rows = [{"rater": "R1", "face": "f1", "trait": "warm", "rating": 3}, {"rater": "R2", "face": "f1", "trait": "warm", "rating": "NA"}]
    table, fate = read(write(tmp_path, "\n".join(map(json.dumps, rows)), "long.jsonl"))
    assert fate.format == "csv" and told(fate) == {"accepted": 1, "unanswered": 1} and fate.participants == 2
    assert table[["stimulus", "question", "value"]].to_numpy().tolist() == [["f1", "warm", 3]]
    assert fate.warnings == ("cells with NA, read as missing: 1",)


def test_what_is_told_of_single_rows_has_an_end(tmp_path):
    text = "rater_id,face_id,rating\n" + "".join(f"R{n},f1,7-Jan\n" for n in range(400)) + "".join(f",f{n},3\n" for n in range(400))
    _, fate = read(write(tmp_path, text))
    assert told(fate) == {"accepted": 400, "invalid": 400}
    assert len(fate.warnings) == 4 and fate.warnings[-1].endswith("by a spreadsheet: 400") and len(fate.problems) == 50


def test_two_rows_of_one_id_that_differ_are_told(tmp_path):
    _, fate = read(write(tmp_path, "assignment,position,question,value,participant\na,1,q,4,P\na,1,q,4,P\na,1,q,5,P\n"))
    assert fate.format == "contrafact" and told(fate) == {"accepted": 1, "duplicates": 1, "invalid": 1}
    assert fate.problems == ("row 4, all columns: row 2 has the same id and says something else",)


def test_the_verb_reads_files_alone(tmp_path, capsys):
    one, two = write(tmp_path, LONG, "one.csv"), write(tmp_path, PROLIFIC, "two.csv")
    assert _run(["survey", "import", str(one), "--dry-run", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    keys = ("format", "rows", "participants", "duplicates", "previews", "unfinished", "unmatched", "excluded", "warnings")
    assert [said[key] for key in keys] == ["csv", 3, 2, 0, 0, 0, 0, 0, []]
    assert _run(["survey", "import", str(one), str(two), "--to", str(tmp_path / "long.parquet"), "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert (said["format"], said["rows"], said["participants"]) == ("several", 9, 7)
    table = pd.read_parquet(tmp_path / "long.parquet")
    assert len(table) == said["answers"] and table["participant"].nunique() == 6
    assert _run(["survey", "import", str(one), "--to", str(tmp_path / "long.parquet")]) == 2
    assert _run(["survey", "import", str(one), "--format", "qualtrics"]) == 2
    assert "is no qualtrics file" in capsys.readouterr().err
    assert not list(tmp_path.glob("workspace/*")), "no store is needed"


REAL = {
    "exports/prolific/prolific_2022_header.csv": ("prolific", 5, 5, {"accepted": 5}),
    "exports/prolific/prolific_2024_header.csv": ("prolific", 4, 4, {"accepted": 2, "unfinished": 2}),
    "exports/prolific/prolific_2025_header.csv": ("prolific", 5, 5, {"accepted": 4, "unfinished": 1}),
    "exports/mturk/crowd_form_2020_header.csv": ("mturk", 2, 2, {"accepted": 2}),
    "exports/mturk/api_style_2026_header.csv": ("mturk", 2, 2, {"accepted": 2}),
    "exports/qualtrics/legitimacy_numeric.csv": ("qualtrics", 156, 156, {"accepted": 134, "unfinished": 22}),
    "exports/qualtrics/legitimacy_text.csv": ("qualtrics", 156, 156, {"accepted": 134, "unfinished": 22}),
    "exports/qualtrics/qualtRics_sample_german_labels.csv": ("qualtrics", 1, 1, {"accepted": 1}),
    "exports/jspsych/data__a-Timeline_Variables.json": ("jspsych", 13, 1, {"accepted": 6, "unanswered": 7}),
    "exports/jspsych/data__image-keyboard-response.csv": ("jspsych", 17, 1, {"accepted": 3, "unanswered": 14}),
    "exports/jspsych/ian-chat__OSF_data.csv": ("jspsych", 12, 1, {"accepted": 9, "unanswered": 3}),
    "exports/jspsych/smoke-test-2__subject-01_data.csv": ("jspsych", 5, 1, {"accepted": 4, "unanswered": 1}),
    "exports/jspsych/smoke-test-2__subject-02_data.json": ("jspsych", 5, 1, {"accepted": 4, "unanswered": 1}),
    "exports/jspsych/stress__subject-nested.json": ("jspsych", 4, 1, {"accepted": 3, "unanswered": 1}),
    "exports/jspsych/v8-data__Audio_Slider_Response.csv": ("jspsych", 5, 1, {"accepted": 4, "unanswered": 1}),
    "exports/jspsych/v8-data__Categorize_HTML.json": ("jspsych", 1, 1, {"unanswered": 1}),
    "exports/jspsych/v8-data__Keyboard_Response.csv": ("jspsych", 17, 1, {"accepted": 3, "unanswered": 14}),
    "exports/jspsych/v8-data__Mouse_Extension.json": ("jspsych", 3, 1, {"accepted": 3}),
    "exports/jspsych/v8-data__Timeline_Variables.csv": ("jspsych", 13, 1, {"accepted": 6, "unanswered": 7}),
    "exports/jspsych/v8-data__broken.json": ("jspsych", 3, 1, {"accepted": 3}),
    "exports/jspsych/question_ratings_raw/09f2jh9faa_trials.json": ("jspsych", 92, 1, {"accepted": 92}),
    "exports/jspsych/question_ratings_raw/0gpwxfjtpe_trials.json": ("jspsych", 92, 1, {"accepted": 92}),
    "exports/jspsych/question_ratings_raw/0y1l4x8eug_trials.json": ("jspsych", 92, 1, {"accepted": 92}),
    "question_ratings/ratings.csv.gz": ("jspsych", 18216, 198, {"accepted": 18216}),
    "question_ratings/participants.csv": ("csv", 198, 198, {"accepted": 198}),
}


@pytest.mark.skipif(not (DATA / "exports").is_dir(), reason="the real files are not here")
def test_real_files_have_the_fates_that_were_counted_by_hand():
    found = {}
    for name in REAL:
        table, fate = read(DATA / name)
        found[name] = (fate.format, fate.rows, fate.participants, told(fate))
        assert not table.get("text", pd.Series(dtype=str)).str.contains(r"^192\.0\.2\.|@example\.org", regex=True).any(), name
    assert found == REAL
    assert {str(path.relative_to(DATA)) for folder in ("exports", "question_ratings") for path in (DATA / folder).rglob("*") if path.suffix in (".csv", ".json", ".gz")} == set(REAL)


@pytest.mark.skipif(not (DATA / "exports").is_dir(), reason="the real files are not here")
def test_the_same_responses_as_numbers_and_as_words_are_the_same_rows():
    numbers, _ = read(DATA / "exports/qualtrics/legitimacy_numeric.csv")
    words, _ = read(DATA / "exports/qualtrics/legitimacy_text.csv")
    same = ["participant", "row", "question", "response_ms", "started", "ended"]
    pd.testing.assert_frame_equal(numbers[same], words[same])
    assert numbers["value"].notna().mean() > 0.9 > words["value"].notna().mean()


MEMORY = """
import resource, sys
from pathlib import Path
from contrafact.survey.formats import Reading, alone, long_table
reading = Reading(Path(sys.argv[1]))
with long_table(Path(sys.argv[1] + ".parquet")) as write:
    for piece in alone(reading, {}):
        write(piece)
print(reading.fate.accepted, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
"""


@pytest.mark.slow
def test_memory_does_not_grow_with_the_file(tmp_path):
    """Megabytes at the peak, of a small file and of one that is ten times as long."""
    peak = {}
    for rows in (30_000, 300_000):
        path = tmp_path / f"{rows}.csv"
        with path.open("w") as lines:
            lines.write("assignment,position,question,value,response_ms,participant\n")
            lines.writelines(f"{n // 100:010x},{n % 100 + 1},trust,{n * 7 % 101},{300 + n % 900},P{n // 100}\n" for n in range(rows))
        said = subprocess.run([sys.executable, "-c", MEMORY, path], capture_output=True, text=True, check=True).stdout.split()
        assert int(said[0]) == rows
        peak[rows] = int(said[1])
    assert peak[300_000] - peak[30_000] < 20, peak

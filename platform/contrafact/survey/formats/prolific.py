"""Prolific's export of submissions and demographics, of all ages of its header. It holds no answers to trials."""

from __future__ import annotations

import re
from collections.abc import Iterator

from contrafact.survey.formats.rows import Answer, Notes, Row, Stay, by_plain, moment, pick
from contrafact.survey.formats.source import Source, plain

STATUS: dict[str, Stay] = {
    "APPROVED": "answered",
    "AWAITING REVIEW": "answered",
    "PARTIALLY APPROVED": "answered",
    "REJECTED": "answered",  # not paid is not excluded: the frozen rules decide what is analysed
    "RETURNED": "unfinished",
    "TIMED OUT": "unfinished",
    "SCREENED OUT": "unfinished",
    "ACTIVE": "unfinished",
    "RESERVED": "unfinished",
}
MISSING = {"CONSENT_REVOKED", "DATA_EXPIRED", "Not Applicable"}
_OWN = {
    "submissionid", "sessionid", "participantid", "status", "customstudytncsacceptedat", "startedat", "starteddatetime",
    "completedat", "completeddatetime", "reviewedat", "reviewedatdatetime", "archivedat", "archivedatdatetime",
    "timetaken", "completioncode", "enteredcode", "totalapprovals", "numapprovals", "numrejections", "prolificscore",
    "studyid", "customtncsacceptedat", "bonus", "reward",
}  # fmt: skip


def matches(source: Source) -> bool:
    names = source.names
    return "participantid" in names and bool(names & {"submissionid", "sessionid"}) and "status" in names and bool(
        names & {"timetaken", "startedat", "starteddatetime", "totalapprovals", "numapprovals"}
    )


def read(source: Source, notes: Notes) -> Iterator[Row]:
    names = by_plain(source.header)
    key, person = pick(names, "submissionid", "sessionid"), names["participantid"]
    started, ended = pick(names, "startedat", "starteddatetime"), pick(names, "completedat", "completeddatetime")
    code = pick(names, "completioncode", "enteredcode")
    questions = [name for name in source.header if plain(name) not in _OWN]
    for record in source.records():
        cells = record.cells
        status = re.sub(r"[\s_-]+", " ", cells[names["status"]]).strip().upper()
        stay = STATUS.get(status)
        if stay is None:
            notes.count(f"submissions of the unknown status '{status[:40]}', taken as submitted: {{n}}")
        if status == "REJECTED":
            notes.count("rejected submissions, kept (payment and exclusion are two decisions): {n}")
        if status == "SCREENED OUT":
            notes.count("submissions screened out: {n}")
        if code and cells[code] == "NOCODE":
            notes.count("submissions without a completion code: {n}")
        if any(cells[name] == "CONSENT_REVOKED" for name in questions):
            notes.count("people who revoked consent to their demographics, which are missing: {n}")
        if any(cells[name] == "DATA_EXPIRED" for name in questions):
            notes.count("people whose demographics expired and are missing: {n}")
        yield Row(
            record.row,
            cells[person],
            [Answer(name, cells[name]) for name in questions if cells[name] and cells[name] not in MISSING],
            key=cells[key] if key else "",
            stay=stay or "answered",
            status=status,
            started=moment(cells[started]) if started else None,
            ended=moment(cells[ended]) if ended else None,
            content=cells,
        )

"""Label Studio: tasks with annotations (JSON), or its short forms with one annotation a row (JSON_MIN, CSV)."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from contrafact.survey.formats.outgoing import PLACES, Outgoing, write_json
from contrafact.survey.formats.rows import Answer, Notes, Row, is_personal, moment, number_of, text_of
from contrafact.survey.formats.source import Source

_SHORT = {"annotation_id", "annotator", "lead_time"}
_META = {"id", "annotation_id", "annotator", "created_at", "updated_at", "lead_time", "agreement", "assignment", "position", "stimulus"}


def matches(source: Source) -> bool:
    if source.is_json:
        first = source.first
        return ("annotations" in first or "completions" in first) and "data" in first or set(first) >= _SHORT
    return set(source.header) >= _SHORT


def read(source: Source, notes: Notes) -> Iterator[Row]:
    for record in source.records():
        cells = record.cells
        if "data" in cells and ("annotations" in cells or "completions" in cells):
            yield from _task(record.row, cells, notes)
        else:
            yield _short(record.row, cells)


def _task(number: int, task: Mapping[str, Any], notes: Notes) -> Iterator[Row]:
    data = task["data"] if isinstance(task["data"], dict) else {}
    for name in data:
        if is_personal(name):
            notes.dropped[name] = None
    if task.get("predictions"):
        notes.count("tasks with predictions of a model, which stay out (never pooled with people): {n}")
    annotations = task.get("annotations") or task.get("completions") or []
    if not annotations:
        yield Row(number, "", [], key=f"task {task.get('id')}", stay="unanswered", content=task)
    for annotation in annotations:
        if not isinstance(annotation, dict):
            yield Row(number, "", [], stay="unanswered", problem="annotations: an annotation is not an object")
            continue
        by = annotation.get("completed_by")
        if isinstance(by, dict):
            by = by.get("id") or by.get("email")
        cancelled = bool(annotation.get("was_cancelled"))
        if cancelled:
            notes.count("annotations cancelled by their annotators: {n}")
        if annotation.get("ground_truth"):
            notes.count("annotations marked as ground truth: {n}")
        seconds = number_of(text_of(annotation.get("lead_time")))
        results = [item for item in annotation.get("result") or [] if isinstance(item, dict) and "from_name" in item]
        answers = [
            Answer(
                text_of(item["from_name"]),
                _value(item.get("value")),
                assignment=text_of(data.get("assignment")),
                position=text_of(data.get("position")),
                stimulus=_shown(data, item.get("to_name")),
                response_ms=f"{seconds * 1000:.0f}" if math.isfinite(seconds) else "",
            )
            for item in results
        ]
        ended = moment(text_of(annotation.get("updated_at") or annotation.get("created_at")))
        yield Row(
            number,
            text_of(data.get("participant")) or text_of(by),
            [] if cancelled else answers,
            key=f"annotation {annotation['id']}" if "id" in annotation else "",
            stay="unfinished" if cancelled else "answered" if answers else "unanswered",
            status="cancelled" if cancelled else "",
            ended=ended,
            content=annotation,
        )


def _short(number: int, cells: Mapping[str, Any]) -> Row:
    seconds = number_of(text_of(cells.get("lead_time")))
    pictures = {name for name, value in cells.items() if isinstance(value, str) and _is_picture(value)}
    answers = [
        Answer(
            name,
            _value(_parsed(value)),
            assignment=text_of(cells.get("assignment")),
            position=text_of(cells.get("position")),
            stimulus=text_of(cells.get("stimulus")) or next((text_of(cells[p]) for p in cells if p in pictures), ""),
            response_ms=f"{seconds * 1000:.0f}" if math.isfinite(seconds) else "",
        )
        for name, value in cells.items()
        if name not in _META and name not in pictures and not is_personal(name) and text_of(value)
        and not (name.startswith("text_") and name[5:] in cells)  # the wording of a question that we sent
    ]
    return Row(
        number,
        text_of(cells.get("participant")) or text_of(cells.get("annotator")),
        answers,
        key=f"annotation {text_of(cells.get('annotation_id'))}",
        stay="answered" if answers else "unanswered",
        ended=moment(text_of(cells.get("updated_at") or cells.get("created_at"))),
        content=dict(cells),
    )


def _is_picture(text: str) -> bool:
    return text.startswith(("http://", "https://", "/data/", "s3://", "gs://")) or text.lower().endswith((".png", ".jpg", ".jpeg", ".webp"))


def _shown(data: Mapping[str, Any], to_name: Any) -> str:
    """The stimulus of a result; ``to_name`` comes as text or as a list."""
    names = to_name if isinstance(to_name, list) else text_of(to_name).split(",")
    if "stimulus" in data:
        return text_of(data["stimulus"])
    shown = [text_of(data[name]) for name in map(text_of, names) if name in data]
    return "|".join(shown) or next((text for value in data.values() if isinstance(text := value, str) and _is_picture(text)), "")


def _value(value: Any) -> str:
    """The one thing that a control gives: {"rating": 5}, {"choices": ["a"]}, {"selected": "left"}, {"text": ["..."]}.

    The short forms put it into a list."""
    if isinstance(value, list) and len(value) == 1 and isinstance(value[0], dict):
        value = value[0]
    if isinstance(value, dict) and len(value) == 1:
        return text_of(next(iter(value.values())))
    return text_of(value)


def _parsed(value: Any) -> Any:
    if isinstance(value, str) and value[:1] in ("{", "["):
        try:
            return json.loads(value)
        except (ValueError, RecursionError):
            return value
    return value


def write(folder: Path, batch: Outgoing) -> list[str]:
    """``tasks.json``, one task a trial, and ``config.xml``. Returns what is not carried over.

    Texts stand in the tasks, where nothing reads them as markup or as names of variables.
    """
    tasks, attention = [], 0
    images = [f"image_{place + 1}" for place in range(len(batch.places))] if len(batch.places) > 1 else ["image"]
    for code, trials in batch.lists():
        for trial in trials:
            if not (files := trial[0]["files"]):
                attention += 1
                continue
            texts = {f"text_{row['question']}": f"{row['text']}{_ends(row)}" for row in trial}
            about = {"assignment": code, "position": trial[0]["position"], "stimulus": " ".join(files)}
            links = {name: f"{batch.pictures}images/{file}" for name, file in zip(images, files, strict=True)}
            tasks.append({"data": {**links, **about, **texts}})
    write_json(folder / "tasks.json", tasks)
    shown = ['  <Image name="image" value="$image"/>']
    if len(images) > 1:
        each = [
            f'    <View><Header value="{place}"/><Image name="{name}" value="${name}"/></View>'
            for name, place in zip(images, batch.places, strict=True)
        ]
        shown = ['  <View style="display: flex; gap: 1em">', *each, "  </View>"]
    controls = []
    for question in batch.questions:
        about_control = f'name="{question.name}" toName="{images[0]}" required="true"'
        controls.append(f'  <Header value="$text_{question.name}"/>')
        if question.scale == "text":
            controls.append(f'  <TextArea {about_control} maxSubmissions="1"/>')
        elif question.scale in PLACES:
            choices = "".join(f'<Choice value="{place}"/>' for place in range(1, len(images) + 1))
            controls.append(f'  <Choices {about_control} choice="single-radio" showInline="true">{choices}</Choices>')
        elif question.scale == "likert7":
            controls.append(f'  <Rating {about_control} maxRating="7"/>')
        else:
            controls.append(f'  <Number {about_control} min="0" max="100" step="0.1"/>')
    config = ["<View>", *shown, *controls, "</View>", ""]
    (folder / "config.xml").write_text("\n".join(config), encoding="utf-8")
    told = [
        "Lists are not handed out: let each annotator filter by one `assignment`, and no assignment be taken by two.",
        "The order of a list is that of `position`; Label Studio does not enforce it.",
        "The line from 0 to 100 is a field for a number.",
        "Ids of annotators take the place of the panel's ids.",
    ]
    if any(question.scale == "worst" for question in batch.questions):
        told.append("Nothing keeps people from naming one picture as the best and as the worst; the import counts such trials.")
    return told + [f"{attention} attention trials, which show no picture, are left out."] * bool(attention)


def _ends(row: Mapping[str, Any]) -> str:
    if row["scale"] == "text":
        return ""
    if row["scale"] in PLACES:
        return " (by its place: 1 is the first picture)"
    first, last = (1, 7) if row["scale"] == "likert7" else (0, 100)
    return f" ({first} = {row['low']}, {last} = {row['high']})"

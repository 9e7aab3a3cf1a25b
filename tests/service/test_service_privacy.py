"""No raw id of a participant leaves its one table: not into exports, logs, pages, the report or the tracker's files."""

from __future__ import annotations

import asyncio
import json
import logging
import re
import sqlite3
import zlib
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pandas as pd
import pytest

from contrafact.cli import main
from contrafact.run.engine import run_study
from contrafact.service.app import build
from contrafact.service.visitors import Visitor, serving
from contrafact.survey import batch

RAW = [f"panel-person-{number}-kq7" for number in range(3)]


def shown(trials: Any) -> dict[int, Any]:
    rng = np.random.default_rng(5)
    return {
        one["position"]: (
            {"groomed": float(rng.integers(101)), "warm": float(rng.integers(1, 8))} if one["picture"]
            else {"attention": float(one["questions"][0]["text"].split()[-1].rstrip("."))}, 900.0,
        )
        for one in trials
    }  # fmt: skip


def readable(path: Path) -> bytes:
    """What a file says, packed as it may be; a PDF's words stand in pieces with the room between letters."""
    raw = path.read_bytes()
    if path.suffix == ".parquet":
        return raw + pd.read_parquet(path).to_csv().encode()
    if path.suffix == ".pdf":
        streams = b"".join(zlib.decompress(packed) for packed in re.findall(rb"/FlateDecode.*?stream\n(.*?)\nendstream", raw, re.DOTALL))
        return raw + re.sub(rb"\)\s*-?[\d.]+\s*\(", b"", streams)
    return raw


def told(words: list[str], capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    with pytest.raises(SystemExit) as left:
        main([*words, "--json"])
    out = capsys.readouterr()
    assert left.value.code in (0, None), out.err
    assert not any(raw in out.out + out.err for raw in RAW)
    return dict(json.loads(out.out.splitlines()[-1]))


def test_no_raw_id_in_anything_that_leaves_and_deletion_still_verifies(
    fielded: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    caplog.set_level(logging.DEBUG)
    crowd = []
    pages = []
    with serving(build(fielded.store, fielded.files, fielded.study_id, fielded.loaded.study, fielded.batch)) as address:

        async def visit() -> None:
            for raw in RAW:
                crowd.append(Visitor(address, {"participant": raw}, shown, ["faces"], np.random.default_rng(len(crowd))))
                pages.append(await crowd[-1].arrive())
                assert await crowd[-1].visit() == "done"

        asyncio.run(visit())
    run_study(fielded.loaded, fielded.settings)
    for format in ("csv", "jspsych", "surveyjs", "label_studio", "qualtrics"):
        words = ["survey", "export", str(fielded.path), "--to", str(tmp_path / f"out-{format}"), "--format", format]
        told([*words, "--pictures", "https://pictures.example.org/"], capsys)
    batch.write_csv(tmp_path / "ratings.csv", fielded.store.ratings_table(fielded.study_id))
    told(["status", str(fielded.path)], capsys)
    theirs = tmp_path_factory.mktemp("theirs") / "answers.csv"
    theirs.write_text("participant,email,question,value\n" + "".join(f"{raw},{raw}@example.org,trust,50\n" for raw in RAW))
    for kind in ("csv", "parquet"):
        assert told(["survey", "import", str(theirs), "--to", str(tmp_path / f"long.{kind}")], capsys)["participants"] == 3
    assert (fielded.settings.workspace / "reports" / "cards.html").is_file()

    database = fielded.settings.workspace / "store.db"
    files = [each for each in tmp_path.rglob("*") if each.is_file() and not each.name.startswith(database.name)]
    said = {each: readable(each) for each in files}
    assert len(files) > 50 and {".csv", ".parquet", ".pdf", ".html", ".json", ".md"} <= {each.suffix for each in files}
    assert any(each.name == "cards.pdf" and b"Portraits" in said[each] for each in files), "and a PDF can be read"
    for raw in RAW:
        found = [each for each in files if raw.encode() in said[each]]
        assert found == [], "the raw id is in a file"
        assert raw not in caplog.text and raw not in json.dumps(pages)
    assert any(one.name == "cards.html" for one in files) and any("mlflow" in str(one).lower() for one in files)
    with sqlite3.connect(database) as raw_store:
        tables = [name for (name,) in raw_store.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        holding = [name for name in tables if RAW[0] in str(raw_store.execute(f'SELECT * FROM "{name}"').fetchall())]
        before = raw_store.execute("SELECT count(*) FROM commitment WHERE salt IS NOT NULL").fetchone()[0]
    assert holding == ["panel_id"]

    with serving(build(fielded.store, fielded.files, fielded.study_id, fielded.loaded.study, fielded.batch)) as address:
        gone = httpx.post(f"{address}/api/forget", json={}, headers={"Authorization": f"Bearer {crowd[0].token}"})
        assert gone.json() == {"status": "forgotten"}
    assert told(["verify", str(fielded.path)], capsys)
    last = fielded.store.chain(fielded.study_id)[-1]
    assert last.kind == "deletion" and len(last.payload["digests"]) == 11, "a tombstone for each answer"
    with sqlite3.connect(database) as raw_store:
        after = raw_store.execute("SELECT count(*) FROM commitment WHERE salt IS NOT NULL").fetchone()[0]
        assert before - after == 11
        assert raw_store.execute("SELECT count(*) FROM panel_id").fetchone() == (2,)
        raw_store.execute("UPDATE panel_id SET delete_after = '2001-01-01 00:00:00.000000'")
    expire = ["survey", "expire", str(fielded.path)]
    assert told([*expire, "--dry-run"], capsys)["expired"] == told(expire, capsys)["expired"] == 2
    assert told(expire, capsys)["expired"] == 0 and told(["verify", str(fielded.path)], capsys)
    with sqlite3.connect(database) as raw_store:
        assert raw_store.execute("SELECT count(*) FROM panel_id").fetchone() == (0,)
        assert raw_store.execute("SELECT detail FROM audit WHERE action = 'expiry'").fetchall() == [('{"panel_ids": 2}',)]

"""The real `contrafact dashboard` in a real Chromium: a verdict by keyboard changes what may be fielded.

With CONTRAFACT_SCREENSHOTS in the environment, pictures of the pages are kept in that folder.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from contrafact.readings import stimuli
from contrafact.settings import Settings
from contrafact.store import open_store

pytestmark = pytest.mark.browser

FLAGS = (
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage",
)  # fmt: skip
PATIENCE = 60_000  # milliseconds
HOSTILE = " ".join(" ".join(json.loads((Path(__file__).parents[1] / "hostile.json").read_text())).split())[:190]


@pytest.fixture(scope="module")
def chromium() -> str:
    found = shutil.which("chromium") or shutil.which("chromium-browser")
    if found is None and os.environ.get("CI") == "true":
        pytest.fail("Chromium is missing: apt-get install chromium")
    return found or pytest.skip("Chromium is not installed")


@pytest.fixture
def address(place: Settings) -> Iterator[str]:
    """The dashboard's address, as the command tells it."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = Path(sys.executable).with_name("contrafact")
    words = [str(command), "dashboard", "--port", str(port), "--workspace", str(place.workspace), "--json"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as running:
        assert running.stdout is not None
        told = json.loads(running.stdout.readline())
        yield told["address"]
        os.kill(told["pid"], 15)
        running.wait(30)


@pytest.fixture
def page(chromium: str, address: str) -> Iterator[object]:
    from playwright.sync_api import Error, sync_playwright

    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=chromium, args=list(FLAGS))
        tab = browser.new_page(viewport={"width": 1400, "height": 1200})
        tab.set_default_timeout(PATIENCE)
        run = []
        tab.on("dialog", lambda asked: (run.append(asked.message), asked.dismiss()))
        for attempt in range(60):
            try:
                tab.goto(address)
                break
            except Error:
                if attempt == 59:
                    raise
                tab.wait_for_timeout(1000)
        yield tab
        browser.close()
        assert run == [], "a text was run as a script"


def kept(tab, name: str) -> None:
    if folder := os.environ.get("CONTRAFACT_SCREENSHOTS"):
        Path(folder).mkdir(parents=True, exist_ok=True)
        tab.wait_for_timeout(1500)
        tab.screenshot(path=Path(folder) / f"{name}.png", full_page=True)


def test_a_verdict_by_keyboard_changes_what_is_fielded(fill, place: Settings, page) -> None:
    study_id = fill(title=HOSTILE)
    fill("finished", title="A finished study", until="report")
    page.reload()
    page.get_by_role("heading", name=HOSTILE).wait_for()
    kept(page, "overview")

    page.get_by_role("link", name="Review them").click()
    page.get_by_label("Your name").fill("Ann")
    kept(page, "review-name")
    page.keyboard.press("Enter")
    page.get_by_text("3 to review").wait_for()
    page.get_by_role("button", name="Keep").wait_for()
    page.get_by_alt_text("Image ann, treated, dose +1.5").wait_for()
    picture = page.get_by_alt_text("Image ann, treated, dose +1.5").bounding_box()
    assert picture is not None and picture["width"] >= 100, "32 pixels are too small to judge"
    kept(page, "review")

    page.keyboard.press("k")
    page.get_by_text("1 kept, 2 to review").wait_for()
    page.get_by_alt_text("Image bob, treated, dose +1.5").wait_for()
    page.keyboard.press("3")
    page.get_by_text("1 kept, 1 rejected, 1 to review").wait_for()
    page.get_by_alt_text("Image cy, treated, dose +1.5").wait_for()
    page.keyboard.press("ArrowLeft")
    page.get_by_role("cell", name="traces of editing").wait_for()
    kept(page, "review-decided")

    with open_store(place.database_url) as store:
        said = {(one.verdict, one.reason, one.reviewer) for one in store.reviews(study_id)}
        rejected = set(store.stimuli_table(study_id).query("rejected")["set_key"])
    assert said == {("keep", "", "Ann"), ("reject", "traces of editing", "Ann")}
    assert rejected == {"smile/bob"}
    assert [one.standing for one in stimuli.sets(place, "smiles").states] == ["kept", "rejected", "waiting"]


def test_results_are_shown(fill, place: Settings, page) -> None:
    fill("finished", title=HOSTILE, until="report")
    page.reload()
    page.get_by_role("link", name="Results").click()
    page.get_by_role("heading", name=HOSTILE).wait_for()
    page.get_by_text("The data support the claim").wait_for()
    page.get_by_role("columnheader", name="estimate").wait_for()
    chart = page.get_by_alt_text("Line chart of mean ratings by dose").bounding_box()
    assert chart is not None and chart["height"] > 200
    kept(page, "results")
    page.get_by_role("link", name="Stimuli and review").click()
    page.get_by_label("Your name").fill("Ann")
    page.keyboard.press("Enter")
    page.get_by_text("The study is registered").wait_for()
    kept(page, "withdraw")

"""The real `contrafact survey serve` in a real Chromium: whatever people and networks do, nothing is lost or doubled.

With CONTRAFACT_SCREENSHOTS in the environment, pictures of the pages are kept in that folder.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from contrafact.service.app import Desk, build
from contrafact.service.visitors import people, serving
from contrafact.study.schema import Comprehension, Respondents

AXE = (Path(__file__).parent / "axe" / "axe-4.14.1.min.js").read_text(encoding="utf-8")  # MPL-2.0, as published on npm
AXE_SHA256 = "29348999450cdf2849a8e70b7912fc2da85a849da39c0d0d5394f51d4a9ed95c"
pytestmark = pytest.mark.browser

FLAGS = (
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage",
)  # fmt: skip
PATIENCE = 60_000  # milliseconds
ANSWERS = 11  # of one whole list: five pictures with two questions, one attention trial


class Server:
    """The command itself, which can be killed and started again on its port."""

    def __init__(self, fielded: Any) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        command = str(Path(sys.executable).with_name("contrafact"))
        self.words = [command, "survey", "serve", str(fielded.path), "--port", str(self.port), "--json"]
        self.start()

    def start(self) -> None:
        self.running = subprocess.Popen(self.words, stdout=subprocess.PIPE, text=True)
        assert self.running.stdout is not None
        self.address = json.loads(self.running.stdout.readline())["address"]

    def kill(self) -> None:
        self.running.send_signal(signal.SIGKILL)
        self.running.wait(30)


@pytest.fixture
def server(fielded: Any) -> Iterator[Server]:
    made = Server(fielded)
    yield made
    made.kill()


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    found = shutil.which("chromium") or shutil.which("chromium-browser")
    if found is None and os.environ.get("CI") == "true":
        pytest.fail("Chromium is missing: apt-get install chromium")
    if found is None:
        pytest.skip("Chromium is not installed")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as play:
        running = play.chromium.launch(executable_path=found, args=list(FLAGS))
        yield running
        running.close()


@pytest.fixture
def context(browser: Any) -> Iterator[Any]:
    made = browser.new_context(viewport={"width": 1100, "height": 900}, locale="en-GB")
    made.set_default_timeout(PATIENCE)
    yield made
    made.close()


@pytest.fixture
def page(context: Any) -> Any:
    tab = context.new_page()
    tab.problems = []
    tab.on("pageerror", lambda error: tab.problems.append(str(error)))
    tab.on("console", lambda said: tab.problems.append(said.text) if "Content Security" in said.text else None)
    return tab


def kept(tab: Any, name: str) -> None:
    if folder := os.environ.get("CONTRAFACT_SCREENSHOTS"):
        Path(folder).mkdir(parents=True, exist_ok=True)
        tab.wait_for_timeout(400)
        tab.screenshot(path=Path(folder) / f"survey-{name}.png", full_page=True)


def clean(tab: Any) -> None:
    """axe-core finds nothing on the page as it stands."""
    tab.evaluate(AXE)
    found = tab.evaluate("axe.run(document, {resultTypes: ['violations']})")
    told = [f"{one['id']}: {node['html']} {node['failureSummary']}" for one in found["violations"] for node in one["nodes"]]
    assert len(found["passes"]) > 10, "it has looked"
    assert not told, "\n".join([tab.title(), *told])


def opened(tab: Any, server: Server, who: str = "ann") -> None:
    tab.goto(f"{server.address}/?participant={who}")


def to_trials(tab: Any) -> None:
    tab.get_by_role("button", name="I agree", exact=True).click()
    tab.get_by_role("button", name="Go on").click()
    tab.get_by_label("faces").check()
    tab.get_by_role("button", name="Check my answers").click()
    trial(tab, 1)


def trial(tab: Any, number: int) -> None:
    tab.locator("h1", has_text=f" {number} of 6").wait_for()


def answer(tab: Any) -> None:
    """Answers whatever is asked, by mouse."""
    for slider in tab.get_by_role("slider").all():
        room = slider.bounding_box()
        slider.click(position={"x": room["width"] * 0.8, "y": room["height"] / 2})
    if tab.get_by_role("radio").count():
        tab.locator(".likert label").nth(2).click()
    tab.get_by_role("button", name="Next").click()


def answer_all(tab: Any, first: int = 1) -> None:
    for number in range(first, 7):
        trial(tab, number)
        answer(tab)
    tab.locator("#code").wait_for()


def stored(fielded: Any) -> int:
    answers = fielded.store.answers(fielded.study_id, fielded.batch)
    assert not answers.duplicated(["list", "position", "question"]).any()
    return len(answers)


def test_a_whole_visit_by_keyboard_alone(fielded: Any, server: Server, page: Any) -> None:
    opened(page, server)
    page.get_by_role("button", name="I agree", exact=True).wait_for()
    kept(page, "consent")
    press = page.keyboard.press
    press("Tab"), press("Tab"), press("Enter")
    page.get_by_role("heading", name="How it works").wait_for()
    press("Tab"), press("Enter")
    page.get_by_role("heading", name="Two minutes of care").wait_for()
    press("Tab"), press("Space")
    kept(page, "comprehension")
    press("Enter")
    for number in range(1, 7):
        trial(page, number)
        slider = page.get_by_role("slider")
        assert slider.get_attribute("aria-valuetext") == "not answered yet", "no handle before the first touch"
        assert slider.evaluate("it => it === document.activeElement")
        if number == 1:
            press("Enter")
            page.get_by_text("Please answer first.").wait_for()
        press("End"), press("ArrowLeft")
        assert slider.get_attribute("aria-valuetext").startswith("99 of 100")
        if page.get_by_role("radio").count():
            press("Tab"), press("Space"), press("ArrowRight")
        if number == 2:
            kept(page, "trial")
        press("Enter")
    page.locator("#code").wait_for()
    kept(page, "debrief")
    assert stored(fielded) == ANSWERS and page.problems == []
    values = fielded.store.ratings_table(fielded.study_id)
    assert set(values["value"]) == {99.0, 2.0} and (values["response_ms"] > 0).all()


def test_reload_back_and_double_click(fielded: Any, server: Server, page: Any) -> None:
    opened(page, server)
    to_trials(page)
    answer(page)
    trial(page, 2)
    page.reload()
    trial(page, 2)
    page.goto("about:blank")
    page.go_back()
    trial(page, 2)
    for slider in page.get_by_role("slider").all():
        slider.press("Home")
    if page.get_by_role("radio").count():
        page.locator(".likert label").nth(0).click()
    page.get_by_role("button", name="Next").dblclick()
    answer_all(page, first=3)
    assert stored(fielded) == ANSWERS and page.problems == []


def test_two_tabs(fielded: Any, server: Server, context: Any, page: Any) -> None:
    opened(page, server)
    to_trials(page)
    other = context.new_page()
    opened(other, server)
    trial(other, 1)
    answer(page)
    trial(page, 2)
    answer(other)  # the same trial, with a key of its own
    trial(other, 2)
    answer_all(other, first=2)
    page.reload()
    page.locator("#code").wait_for()
    assert stored(fielded) == ANSWERS


def test_offline_and_the_connection_comes_back(fielded: Any, server: Server, context: Any, page: Any) -> None:
    opened(page, server)
    to_trials(page)
    trial(page, 1)
    context.set_offline(True)
    answer(page)
    trial(page, 2)
    answer(page)
    trial(page, 3)
    page.get_by_text("You are offline.").wait_for()
    kept(page, "offline")
    assert stored(fielded) == 0
    context.set_offline(False)
    answer_all(page, first=3)
    assert stored(fielded) == ANSWERS


def test_the_server_is_killed_between_two_trials(fielded: Any, server: Server, page: Any) -> None:
    opened(page, server)
    to_trials(page)
    answer(page)
    trial(page, 2)
    server.kill()
    answer(page)
    trial(page, 3)
    server.start()
    page.reload()
    answer_all(page, first=3)
    assert stored(fielded) == ANSWERS


def test_a_phone_with_fingers(fielded: Any, server: Server, browser: Any) -> None:
    phone = browser.new_context(viewport={"width": 360, "height": 740}, has_touch=True, is_mobile=True, reduced_motion="reduce")
    phone.set_default_timeout(PATIENCE)
    tab = phone.new_page()
    opened(tab, server, "pia")
    to_trials(tab)
    for number in range(1, 7):
        trial(tab, number)
        for slider in tab.get_by_role("slider").all():
            slider.tap()
        if tab.get_by_role("radio").count():
            tab.locator(".likert label").nth(5).tap()
        width = tab.evaluate("document.documentElement.scrollWidth")
        assert width <= 360, "nothing is cut off at the side"
        if number == 2:
            kept(tab, "phone")
        tab.get_by_role("button", name="Next").tap()
    tab.locator("#code").wait_for()
    assert stored(fielded) == ANSWERS
    phone.close()


def test_what_a_screen_reader_is_told_and_twice_the_size(server: Server, page: Any) -> None:
    page.set_viewport_size({"width": 550, "height": 450})  # 1100 by 900 at 200%
    opened(page, server)
    to_trials(page)
    for number in range(1, 7):
        trial(page, number)
        assert page.evaluate("document.documentElement.scrollWidth") <= 550
        if page.get_by_role("radio").count():
            break
        answer(page)
    page.get_by_role("slider", name="How well-groomed is this person?").wait_for()
    page.get_by_role("group", name="How warm does this person look?").wait_for()
    assert page.get_by_role("radio", name="1, cold").count() == page.get_by_role("radio", name="7, warm").count() == 1
    assert page.get_by_role("img", name="The picture to judge").count() == 1
    assert page.get_by_role("progressbar", name="Progress").get_attribute("aria-valuenow") is not None
    nameless = page.evaluate(
        "[...document.querySelectorAll('button, input, img')].filter((it) => !(it.labels?.length || it.ariaLabel "
        "|| it.alt || it.textContent.trim())).length"
    )
    assert nameless == 0 and page.evaluate("document.documentElement.lang") == "en"


def test_deleted_by_the_person(fielded: Any, server: Server, page: Any) -> None:
    opened(page, server)
    to_trials(page)
    answer_all(page)
    page.get_by_role("button", name="Withdraw and delete my answers").click()
    page.get_by_role("button", name="Delete", exact=True).click()
    page.get_by_role("heading", name="Deleted").wait_for()
    assert stored(fielded) == 0


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_on_any_page(server: Server, browser: Any, scheme: Any) -> None:
    assert hashlib.sha256(AXE.encode()).hexdigest() == AXE_SHA256
    context = browser.new_context(viewport={"width": 400, "height": 800}, color_scheme=scheme, reduced_motion="reduce")
    context.set_default_timeout(PATIENCE)
    page = context.new_page()
    opened(page, server)
    button = page.get_by_role("button", name="I agree", exact=True)
    button.wait_for(), clean(page)
    button.click()
    page.get_by_role("heading", name="How it works").wait_for(), clean(page)
    page.get_by_role("button", name="Go on").click()
    page.get_by_role("button", name="Check my answers").click()
    page.get_by_text("Please answer every question.").wait_for(), clean(page)
    page.get_by_label("houses").check()
    page.get_by_role("button", name="Check my answers").click()
    page.get_by_role("heading", name="Not quite").wait_for(), clean(page)
    page.get_by_role("button", name="Read again").click()
    page.get_by_role("button", name="Go on").click()
    page.get_by_label("faces").check()
    page.get_by_role("button", name="Check my answers").click()
    for number in range(1, 7):
        trial(page, number), clean(page)
        if number == 1:
            page.keyboard.press("Enter")
            page.get_by_text("Please answer first.").wait_for(), clean(page)
        answer(page)
    page.locator("#code").wait_for(), clean(page)
    page.get_by_role("button", name="Withdraw and delete my answers").click()
    page.get_by_role("heading", name="Delete everything?").wait_for(), clean(page)
    page.get_by_role("button", name="Delete", exact=True).click()
    page.get_by_role("heading", name="Deleted").wait_for(), clean(page)
    opened(page, server, "bob")
    page.get_by_role("button", name="I do not agree").click()
    page.get_by_role("heading", name="Thank you").wait_for(), clean(page)
    context.close()


LANGUAGES = """  languages:
    de:
      title: Porträts nebeneinander
      questions: {neat: {text: Wer ist gepflegter?}, why: {text: Was ist anders?}}
      consent: Sie sehen einige gezeichnete Gesichter.
      instructions: Antworten Sie aus dem Bauch.
      comprehension: [{text: Was beurteilen Sie?, options: [Gesichter, Häuser]}]
      debrief: Die Gesichter hat ein Computer gezeichnet.
    zh:
      title: 人像
      questions: {neat: {text: 哪一个更整洁？}, why: {text: 有什么不同？}}
      consent: 您将看到几张绘制的面孔。
      instructions: 请凭直觉回答。
      comprehension: [{text: 您评价什么？, options: [面孔, 房屋]}]
      debrief: 这些面孔由计算机绘制。
"""


def test_two_languages_in_one_study(side_by_side: Any, browser: Any) -> None:
    made = side_by_side("pairs", 3, 4, LANGUAGES)
    server = Server(made)
    context = browser.new_context(viewport={"width": 1100, "height": 900}, locale="de-AT")
    context.set_default_timeout(PATIENCE)
    page = context.new_page()

    def spoken(language: str) -> None:
        assert page.evaluate("document.documentElement.lang") == language
        clean(page)

    try:
        opened(page, server, "ute")  # the browser asks for German
        page.get_by_role("button", name="Ich stimme zu", exact=True).wait_for(), spoken("de")
        page.get_by_role("link", name="中文").click()
        page.get_by_role("button", name="我同意", exact=True).wait_for(), spoken("zh")
        page.get_by_role("button", name="我同意", exact=True).click()
        page.get_by_role("button", name="继续").click()
        page.get_by_label("面孔").check()
        page.get_by_role("button", name="检查我的回答").click()
        page.get_by_role("heading", name="第 1 题，共 4 题").wait_for(), spoken("zh")
        opened(page, server, "ute")  # the browser still asks for German; the visit began in Chinese
        page.get_by_role("heading", name="第 1 题，共 4 题").wait_for()
        for number in range(1, 5):
            page.get_by_role("heading", name=f"第 {number} 题，共 4 题").wait_for()
            page.get_by_role("group", name="哪一个更整洁？").get_by_role("radio").first.press("Space")
            page.get_by_label("有什么不同？").fill("胡子")
            page.get_by_role("button", name="下一个").click()
        page.locator("#code").wait_for(), spoken("zh")
        assert page.title() == "谢谢 · 人像"
        page.goto(f"{server.address}/?participant=eva&lang=en")
        page.get_by_role("button", name="I agree", exact=True).wait_for(), spoken("en")
        assert set(made.store.texts_table(made.study_id)["text"]) == {"胡子"}
    finally:
        context.close()
        server.kill()
        made.store.close()


def test_pages_of_who_is_turned_away(side_by_side: Any, page: Any) -> None:
    age = "{name: age, text: How old are you?, options: [young, middle, old], admit: [middle, old], quotas: {middle: 1}}"
    made = side_by_side("pairs", 3, 4, pages=f"    screening: [{age}]\n")
    server = Server(made)

    def answered(who: str, what: str) -> None:
        opened(page, server, who)
        page.get_by_role("button", name="I agree", exact=True).click()
        page.get_by_role("heading", name="First a few questions").wait_for()
        page.get_by_label(what).check()
        page.get_by_role("button", name="Go on").click()

    try:
        opened(page, server, "ann")
        page.get_by_role("button", name="I agree", exact=True).click()
        page.get_by_role("heading", name="First a few questions").wait_for(), clean(page)
        page.get_by_role("button", name="Go on").click()
        page.get_by_text("Please answer every question.").wait_for(), clean(page)
        page.get_by_label("young").check()
        kept(page, "screening")
        page.get_by_role("button", name="Go on").click()
        page.get_by_text("this study is not for you").wait_for(), clean(page)
        assert page.locator("#code").inner_text() and not page.get_by_role("button").count()
        for who, what in (("ben", "middle"), ("cid", "old"), ("dee", "old")):
            answered(who, what)
            page.get_by_role("heading", name="How it works").wait_for()
        answered("eva", "middle")
        page.get_by_role("heading", name="Enough people have taken part").wait_for(), clean(page)
        answered("fay", "old")
        page.get_by_role("heading", name="All places are taken").wait_for(), clean(page)
        assert page.problems == []
    finally:
        server.kill()
        made.store.close()


@pytest.mark.parametrize("design", ["pairs", "guess", "best_worst"])
def test_several_pictures_by_keyboard_alone(side_by_side: Any, page: Any, design: str) -> None:
    made = side_by_side(design, 3, 4, pages="    practice: {trials: 1}\n    breaks: 2\n" if design == "guess" else "")
    server = Server(made)
    try:
        opened(page, server)
        page.get_by_role("button", name="I agree", exact=True).click()
        page.get_by_role("button", name="Go on").click()
        page.get_by_label("faces").check()
        page.get_by_role("button", name="Check my answers").click()
        press = page.keyboard.press
        if design == "guess":
            page.get_by_role("heading", name="Practice").wait_for(), clean(page)
            press("Tab"), press("Enter")
            page.get_by_role("heading", name="Practice 1 of 1").wait_for(), clean(page)
            press("Space"), press("Tab"), page.keyboard.type("a beard"), press("Tab"), press("Enter")
            page.get_by_role("button", name="Go on").wait_for(), press("Enter")
            page.get_by_role("heading", name="Now it begins").wait_for(), clean(page), press("Enter")
        for number in range(1, 5):
            if design == "guess" and number == 3:
                page.get_by_role("heading", name="Take a break").wait_for(), clean(page)
                kept(page, "break"), press("Enter")
            page.locator("h1", has_text=f" {number} of 4").wait_for()
            if number == 1:
                clean(page)
                kept(page, design)
            press("Space")
            if design == "best_worst":
                press("Tab"), press("Space"), press("ArrowRight")
            else:
                press("Tab"), page.keyboard.type("<b>hair</b>")
            press("Tab"), press("Enter")
            if design == "guess":
                page.get_by_role("button", name="Go on").wait_for()
                clean(page)
                press("Enter")
        page.locator("#code").wait_for()
        chosen = made.store.choices_table(made.study_id).query("chosen")
        if design == "best_worst":
            assert set(zip(chosen["question"], chosen["place"], strict=True)) == {("neat_best", 0), ("neat_worst", 1)}
        else:
            assert set(chosen["place"]) == {0}
            assert set(made.store.texts_table(made.study_id)["text"]) == {"<b>hair</b>"}
        assert page.problems == []
    finally:
        server.kill()
        made.store.close()


def test_simulated_people_at_a_real_browser(fielded: Any, server: Server, browser: Any) -> None:
    survey = fielded.loaded.study.survey.model_copy(update={"respondents": Respondents(inattentive=0.5)})
    asked = fielded.loaded.study.model_copy(update={"survey": survey})
    desk = Desk(fielded.store, fielded.files, fielded.study_id, asked, fielded.batch)
    shown = fielded.store.stimuli_table(fielded.study_id)
    readings = shown.assign(reading=np.linspace(-2, 2, len(shown)))
    expected: dict[str, list[float]] = {"groomed": [], "warm": []}
    for number, person in enumerate(people(server.address, desk, readings, asked)):
        context = browser.new_context(viewport={"width": 900, "height": 900}, locale="en-GB")
        context.set_default_timeout(PATIENCE)
        tab = context.new_page()
        opened(tab, server, f"simulated-{number}")
        with tab.expect_response("**/api/consent") as reply:
            tab.get_by_role("button", name="I agree", exact=True).click()
        answers = person.respond(reply.value.json()["trials"])
        tab.get_by_role("button", name="Go on").click()
        tab.get_by_label("faces").check()
        tab.get_by_role("button", name="Check my answers").click()
        for place, (values, _) in enumerate(answers[number] for number in sorted(answers)):
            trial(tab, place + 1)
            tens, ones = divmod(round(values.get("groomed", next(iter(values.values())))), 10)
            slider = tab.get_by_role("slider")
            for key in ["Home", *["PageUp"] * tens, *["ArrowRight"] * ones]:
                slider.press(key)
            if "warm" in values:
                tab.locator(".likert label").nth(int(values["warm"]) - 1).click()
                expected["groomed"].append(10.0 * tens + ones), expected["warm"].append(values["warm"])
            tab.get_by_role("button", name="Next").click()
        tab.locator("#code").wait_for()
        context.close()
    stored_now = fielded.store.ratings_table(fielded.study_id)
    for question, values in expected.items():
        assert sorted(stored_now[stored_now["question"] == question]["value"]) == sorted(values) and len(values) == 15
    assert stored_now["participant"].nunique() == 3


def test_hostile_texts_stand_on_every_page_as_they_are_and_what_people_do_is_noted(side_by_side: Any, page: Any) -> None:
    made = side_by_side("pairs", 3, 2)
    corpus = json.loads((Path(__file__).parents[1] / "hostile.json").read_text())
    text, line = "\n\n".join(corpus), " ".join(" ".join(corpus).split())
    survey, words = made.loaded.study.survey, {"consent": text, "instructions": text, "debrief": text, "contact": line}
    asked = Comprehension.model_construct(text=line, options=("faces", f"not {line}"), answer="faces")
    questions = tuple(question.model_copy(update={"text": f"{question.name} {line}"}) for question in survey.questions)
    service = survey.service.model_copy(update={**words, "comprehension": (asked,)})
    survey = survey.model_copy(update={"service": service, "questions": questions})
    hostile = made.loaded.study.model_copy(update={"title": line, "survey": survey})
    page.on("dialog", lambda told: (page.problems.append(told.message), told.dismiss()))

    def stands(*wanted: str) -> None:
        page.locator("main h1").wait_for()
        said = " ".join(page.locator("body").inner_text().split())
        assert all(one in said for one in wanted), said
        assert page.locator("main :is(script, b, iframe), main img[src=x], [onerror]").count() == 0

    with made.store, serving(build(made.store, made.files, made.study_id, hostile, made.batch)) as address:
        page.goto(f"{address}/?participant=ann")
        page.get_by_role("button", name="I agree", exact=True).wait_for(), stands(line, f"Questions? {line}", "deleted after 90 days")
        page.get_by_role("button", name="I agree", exact=True).click()
        page.get_by_role("button", name="Go on").wait_for(), stands(line)
        page.get_by_role("button", name="Go on").click()
        page.get_by_label("faces", exact=True).check(), stands(line, f"not {line}")
        page.get_by_role("button", name="Check my answers").click()
        for number in (1, 2):
            page.locator("h1", has_text=f" {number} of 2").wait_for(), stands(f"neat {line}", f"why {line}")
            if number == 1:
                page.evaluate(
                    """() => { Object.defineProperty(document, "visibilityState", {value: "hidden", configurable: true});
                    document.dispatchEvent(new Event("visibilitychange")); delete document.visibilityState; }"""
                )
                page.locator("textarea").evaluate(
                    """(area) => { const data = new DataTransfer(); data.setData("text", "twelve signs");
                    area.dispatchEvent(new ClipboardEvent("paste", {clipboardData: data, bubbles: true})); }"""
                )
            page.locator("textarea").fill(text), page.get_by_role("radio").first.check()
            page.get_by_role("button", name="Next").click()
        page.locator("#code").wait_for(), stands(line)
        texts, choices = (table.sort_values("position") for table in (made.store.texts_table(made.study_id), made.store.choices_table(made.study_id)))
    assert texts["text"].unique().tolist() == [text.replace("\r\n", "\n").strip()], "whole, as a browser gives it"
    assert texts.groupby("position")["pasted"].first().tolist() == [12, 0]
    assert choices.groupby("position")["away"].first().tolist() == [1, 0] and page.problems == []

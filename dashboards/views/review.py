"""Matched sets side by side, and a person's verdict on each, by mouse or by keyboard."""

from html import escape
from typing import Literal

import streamlit as st

from contrafact import actions, settings
from contrafact.errors import UserError
from contrafact.readings import stimuli

REASONS = ("another person or thing", "more than one thing changed", "traces of editing", "does not look real")
place = settings.read()
slug: str = st.session_state["study"]
state = st.session_state


def carry_out(act: Literal["keep", "reject", "withdraw"], found: stimuli.MatchedSet, following: str, reason: str) -> None:
    """Does what a button says, before the page is drawn again, and opens the next set that waits."""
    key, name = found.state.key, state["reviewer"]
    try:
        if act == "withdraw":
            actions.withdraw(place, slug, key, found.pixels, reason, name)
        else:
            actions.review(place, slug, key, found.pixels, act, reason, name)
            state["set"] = following
    except UserError as error:
        state["refused"] = str(error)


def open_set(key: str) -> None:
    state["set"] = key


def in_own_words(act: Literal["reject", "withdraw"], found: stimuli.MatchedSet, following: str) -> None:
    """A reason from the keyboard; the field belongs to the set, so the next set begins with an empty one."""
    field = f"reason {found.state.key}"
    with st.form(f"{act} {found.state.key}", border=False):
        words = st.columns([3, 1], vertical_alignment="bottom")
        words[0].text_input(
            "Reason", max_chars=500, key=field, label_visibility="collapsed", placeholder="Another reason, in your own words"
        )
        words[1].form_submit_button(
            f"{act.capitalize()} for this reason", width="stretch",
            on_click=lambda: carry_out(act, found, following, state[field]),
        )  # fmt: skip


def verdict_bar(found: stimuli.MatchedSet, following: str, registered: bool) -> None:
    if "reviewer" not in state:
        with st.form("name"):
            name = st.text_input("Your name, written beside each of your verdicts", max_chars=80)
            if st.form_submit_button("Begin", type="primary") and name.strip():
                state["reviewer"] = name.strip()
                st.rerun()
        return
    if registered:
        st.info("The study is registered. A set can be withdrawn: that is written into the chain of its registration, which "
                "the report shows. Ratings that were given stay.", icon=":material/lock:")  # fmt: skip
        if found.state.standing != "withdrawn":
            in_own_words("withdraw", found, following)
        return
    st.caption("Keep this set, or reject it because of what is wrong with it. The keys stand on the buttons.")
    with st.container(horizontal=True, gap="small"):
        st.button(
            "Keep", key="keep", icon=":material/check:", shortcut="K",
            on_click=carry_out, args=("keep", found, following, ""),
        )  # fmt: skip
        for digit, reason in enumerate(REASONS, start=1):
            st.button(
                reason.capitalize(), key=f"reject {digit}", icon=":material/close:", shortcut=str(digit), help="Reject",
                on_click=carry_out, args=("reject", found, following, reason),
            )  # fmt: skip
    in_own_words("reject", found, following)


def picture(one: stimuli.Picture, head: str) -> None:
    st.html(f'<div class="cf"><h3>{escape(head)}</h3></div>')
    if one.png is None:
        st.caption("no picture")
    else:
        st.image(one.png, alt=one.alt, width="stretch")
    rows = "".join(f"<tr><th scope='row'>{escape(n)}</th><td>{escape(v)}</td></tr>" for n, v in one.card)
    flags = f"<p>{escape(', '.join(one.flags))}</p>" if one.flags else ""
    if rows or flags:
        st.html(f'<div class="cf card"><table>{rows}</table>{flags}</div>')


st.title("Stimuli and review")
if refused := state.pop("refused", None):
    st.error("Not written:", icon=":material/error:")
    st.code(refused, language=None, wrap_lines=True)
known = stimuli.sets(place, slug)
standing = {one.key: one.standing for one in known.states}
if not standing:
    st.write("This study has no stimuli yet: the page on the left says what comes next.")
    st.stop()

keys = list(standing)
if state.get("set") not in standing:
    state["set"] = next((key for key in keys if standing[key] == "waiting"), keys[0])
current = state["set"]
place_of = keys.index(current)
around = keys[place_of + 1 :] + keys[:place_of]
following = next((key for key in around if standing[key] == "waiting"), current)

counts = {name: list(standing.values()).count(name) for name in ("kept", "rejected", "waiting", "stopped", "withdrawn")}
reviewed = counts["kept"] + counts["rejected"]
words = {"stopped": "stopped by the gate", "waiting": "not reviewed" if known.registered else "to review"}
st.progress(
    reviewed / max(reviewed + counts["waiting"], 1),
    ", ".join(f"{count} {words.get(name, name)}" for name, count in counts.items() if count),
)
with st.container(horizontal=True, vertical_alignment="bottom"):
    st.selectbox("Matched set", keys, key="set", format_func=lambda key: f"{key}: {words.get(standing[key], standing[key])}")
    st.button("Previous", key="previous", shortcut="Left", on_click=open_set, args=(keys[place_of - 1],))
    st.button("Next", key="next", shortcut="Right", on_click=open_set, args=(keys[(place_of + 1) % len(keys)],))

if "reviewer" in state:
    with st.sidebar:
        st.text(f"Reviewer: {state['reviewer']}")
        st.button("Somebody else", on_click=state.pop, args=("reviewer",))

found = stimuli.matched_set(place, slug, current)
verdict_bar(found, following, known.registered)
if found.state.reasons:
    st.html(f'<div class="cf"><p>Stopped by the gate: {escape(", ".join(found.state.reasons))}</p></div>')
if found.verdicts:
    lines = "".join(
        f"<tr><td>{one.at:%Y-%m-%d %H:%M} UTC</td><td>{escape(one.reviewer)}</td><td>{escape(one.verdict)}</td>"
        f"<td>{escape(one.reason) or '(no reason)'}</td><td>{'counts' if one.counts else 'taken back'}</td></tr>"
        for one in found.verdicts
    )
    st.html(
        '<div class="cf"><table><thead><tr><th>when</th><th>who</th><th>verdict</th><th>reason</th><th>now</th></tr></thead>'
        f"<tbody>{lines}</tbody></table></div>"
    )
for arm, pictures in found.rows:
    with st.container(border=True):
        st.html(f'<div class="cf"><h2>{escape(arm)}</h2></div>')
        for column, one, head in zip(st.columns(len(pictures)), pictures, found.columns, strict=True):
            with column:
                picture(one, head)

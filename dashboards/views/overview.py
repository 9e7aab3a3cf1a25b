"""Studies of the workspace: how far each one is, and the command that goes on."""

from html import escape

import streamlit as st

from contrafact import settings
from contrafact.readings import overview

LOOK = {
    "done": ("green", ":material/check:"),
    "running": ("blue", ":material/play_arrow:"),
    "paused": ("orange", ":material/pause:"),
    "failed": ("red", ":material/close:"),
    "interrupted": ("orange", ":material/stop:"),
    "to do": ("gray", ":material/more_horiz:"),
    "left out": ("gray", ":material/remove:"),
}


def last_run(study: overview.StudyState) -> str:
    """When the study was last run and how that ended, in words."""
    if study.run_started is None:
        return "never run"
    words = f"{study.run_status}, begun {study.run_started:%Y-%m-%d %H:%M} UTC"
    if study.run_finished is None:
        return words
    minutes, seconds = divmod(round((study.run_finished - study.run_started).total_seconds()), 60)
    return f"{words}, took {minutes} min {seconds:02d} s"


st.title("Overview")
for study in overview.studies(settings.read()):
    with st.container(border=True):
        st.html(f'<div class="cf"><h2>{escape(study.title)}</h2><p class="quiet">{escape(study.slug)}</p></div>')
        with st.container(horizontal=True, gap="small"):
            for stage in study.stages:
                colour, icon = LOOK[stage.status]
                took = "" if stage.seconds is None else f", {stage.seconds:.0f} s"
                st.badge(stage.name, color=colour, icon=icon, help=f"{stage.status}{took}")
        st.progress(study.done / len(study.stages), f"{study.done} of {len(study.stages)} stages done")
        st.text(f"Last run: {last_run(study)}. {'Registered.' if study.registered else 'Not registered.'}")
        if study.note:
            st.warning("What it said:", icon=":material/info:")
            st.code(study.note, language=None, wrap_lines=True)
        if study.waiting:
            st.text(f"{study.waiting} matched sets wait for review before the study goes on.")
            st.page_link(
                "views/review.py", label="Review them", icon=":material/rate_review:", query_params={"study": study.slug}
            )
        st.caption("Then" if study.waiting else "Next")
        st.code(study.next, language="bash", wrap_lines=True)

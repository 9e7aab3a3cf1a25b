"""What a study found: the claim in a sentence, its statements, the dose-response figure, counts, the report."""

from html import escape

import pandas as pd
import streamlit as st

from contrafact import settings
from contrafact.readings import overview
from contrafact.readings.results import Table, statement_table

COLOUR = {"supported": "green", "not supported": "orange", "not estimable": "gray", "not tested": "gray"}


def shown(table: Table) -> None:
    """A table with a caption and headers; pandas escapes every cell."""
    rows = pd.DataFrame(list(table.rows), columns=list(table.columns))
    st.html(f'<div class="cf"><h3>{escape(table.caption)}</h3>{rows.to_html(index=False, border=0)}</div>')


found = overview.results(settings.read(), st.session_state["study"])
reading = found.reading
st.title("Results")
st.html(f'<div class="cf"><h2>{escape(reading.study.title)}</h2><p>{escape(reading.study.question)}</p></div>')
if reading.study.survey is not None and reading.study.survey.respondents is not None:
    st.info("The respondents are simulated: these are answers of a program, not of people.", icon=":material/smart_toy:")
for sentence in reading.stopped:
    st.warning("The study was stopped:", icon=":material/block:")
    st.code(sentence, language=None, wrap_lines=True)
for claim in reading.claims:
    with st.container(border=True):
        st.badge(claim.verdict, color=COLOUR[claim.verdict])
        st.html(f'<div class="cf"><p>{escape(claim.sentence)}</p></div>')
if reading.truth:
    st.html(f'<div class="cf"><p>{escape(reading.truth)}</p></div>')
if reading.advice:
    st.html('<div class="cf"><h3>What would help</h3><ul>' + "".join(f"<li>{escape(a)}</li>" for a in reading.advice) + "</ul></div>")

if found.report is not None:
    st.download_button(
        "Save the report", found.report.read_bytes(), found.report.name, "text/html",
        icon=":material/description:", on_click="ignore",
    )  # fmt: skip
    st.code(str(found.report), language=None)

for figure in reading.figures:
    st.image(figure.svg, alt=figure.alt, width=640)
    st.html(f'<div class="cf"><p class="quiet">{escape(figure.caption)}</p></div>')

registered = [one for one in reading.statements if one.label == "registered"]
exploratory = [one for one in reading.statements if one.label == "exploratory"]
if registered:
    shown(statement_table(registered, "Registered statements"))
if exploratory:
    with st.expander(f"Exploratory: {len(exploratory)} statements that nobody registered"):
        shown(statement_table(exploratory, "Not corrected for how many there are"))
for table in (*reading.quality, *reading.models, *reading.counts):
    shown(table)

"""The dashboard: pages over the readings of a workspace, and the verdicts that a person may give there."""

import streamlit as st

from contrafact import settings
from contrafact.errors import UserError
from contrafact.readings import workspace

# Text of studies is never given to Markdown: it is escaped into HTML that Streamlit cleans, or shown as code.
STYLE = """<style>
.cf table {border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; font-size: .875rem}
.cf th, .cf td {text-align: left; vertical-align: top; padding: .3rem .6rem .3rem 0;
  border: 0; border-bottom: 1px solid rgba(128, 128, 128, .25)}
.cf th {font-weight: 600}
.cf.card table {font-size: .75rem; line-height: 1.25}
.cf.card p {font-size: .75rem; font-weight: 600}
.cf.card th {font-weight: 400; opacity: .75}
.cf.card th, .cf.card td {padding: .05rem .3rem .05rem 0; border: 0}
.cf.card td {text-align: right; white-space: nowrap}
.cf h2, .cf h3, .cf p {margin: 0; padding: 0}
.cf h2 {font-size: 1.25rem} .cf h3 {font-size: .95rem}
.stMainBlockContainer {padding-top: 3.5rem} .stMainBlockContainer h1 {font-size: 1.75rem; padding: 0 0 .5rem}
.cf .quiet {opacity: .75; font-size: .875rem}
</style>"""

st.set_page_config(page_title="Contrafact", page_icon=":material/compare:", layout="wide")
overview = st.Page("views/overview.py", title="Overview", icon=":material/home:", default=True)
page = st.navigation([
    overview,
    st.Page("views/review.py", title="Stimuli and review", icon=":material/rate_review:"),
    st.Page("views/results.py", title="Results", icon=":material/monitoring:"),
])  # fmt: skip
st.html(STYLE)
try:
    known = workspace.slugs(settings.read())
    if not known:
        st.title("No study yet")
        st.write("No study has been run in this workspace. Begin with:")
        st.code("contrafact demo", language="bash")
    else:
        if page != overview:
            st.sidebar.selectbox("Study", known, key="study", bind="query-params")
        page.run()
except UserError as error:
    st.error("That cannot be shown.", icon=":material/error:")
    st.code(str(error), language=None, wrap_lines=True)

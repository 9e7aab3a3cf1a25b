"""Exchange formats, one a file: what each tool writes, brought to one long table with the fate of every row."""

from contrafact.survey.formats.reading import FORMATS, LONG, Fate, Reading, alone, long_table
from contrafact.survey.formats.table import Mapped, load_mapping

__all__ = ["FORMATS", "LONG", "Fate", "Mapped", "Reading", "alone", "load_mapping", "long_table"]

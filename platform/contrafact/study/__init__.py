"""Study files: schema, loading with all mistakes, the plan of stages, the content of a registration."""

from contrafact.study.load import LoadedStudy, load
from contrafact.study.plan import Expected, PlannedStage, expected, plan
from contrafact.study.register import changed_since, refuse_changes, registration_payload
from contrafact.study.schema import Study

__all__ = [
    "Expected",
    "LoadedStudy",
    "PlannedStage",
    "Study",
    "changed_since",
    "expected",
    "load",
    "plan",
    "refuse_changes",
    "registration_payload",
]

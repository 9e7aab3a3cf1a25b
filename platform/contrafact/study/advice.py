"""What nobody forbids and somebody should know before money is spent: pay and length."""

from __future__ import annotations

from contrafact.study.schema import Study

MINIMUM_HOURLY = {"GBP": 6.0, "USD": 8.0}  # what Prolific asks for at least
SECONDS = {"vas": 6.0, "likert7": 5.0, "choice": 5.0, "best_worst": 10.0, "text": 25.0}  # an answer, with its picture
AROUND_SECONDS = 60.0  # consent, instructions and debriefing
LONGEST_MINUTES = 30.0  # beyond it attention fades


def minutes(study: Study) -> float:
    """How long a participant is likely to take, by rough times of an answer (``SECONDS``)."""
    assert study.survey is not None
    survey = study.survey
    trial = sum(SECONDS[question.scale] for question in survey.questions)
    practice = survey.service.practice.trials if survey.service and survey.service.practice else 0
    shown = survey.trials_per_participant + survey.repeats + practice
    return (AROUND_SECONDS + shown * trial + survey.attention_trials * SECONDS["vas"]) / 60


def warnings(study: Study) -> list[str]:
    """Sentences on pay below the panel's minimum and on length; none where people are simulated."""
    survey = study.survey
    if survey is None or survey.respondents is not None:
        return []
    pay, long, told = survey.pay, minutes(study), []
    least = MINIMUM_HOURLY.get(pay.currency)
    if least is not None and pay.hourly < least:
        told.append(f"Pay is {pay.hourly:g} {pay.currency} an hour; Prolific asks for at least {least:g}.")
    if long > 1.25 * pay.minutes:
        told.append(
            f"The lists are likely to take {long:.0f} minutes, and pay.minutes says {pay.minutes:g}: "
            f"{pay.hourly * pay.minutes / long:.2f} {pay.currency} an hour in truth."
        )
    if long > LONGEST_MINUTES:
        told.append(f"The lists are likely to take {long:.0f} minutes; beyond {LONGEST_MINUTES:g} attention fades.")
    if pay.minutes < 5 and survey.attention_trials > 1:
        told.append("In a study of less than 5 minutes one failed attention trial is enough to reject; decide so beforehand.")
    return told

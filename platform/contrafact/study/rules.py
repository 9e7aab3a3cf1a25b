"""The rules that join several keys of a study.

They read the raw values, not the validated study, so that a wrong number in one place does not hide a wrong word
in another. Values of a wrong type are passed over here: the schema tells them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, get_args

from contrafact.errors import nearest
from contrafact.study import schema
from contrafact.study.source import Finding, Loc, shown
from contrafact.study.worlds import WORLD_FACTORS

SOURCES = ("world", "images", "stimuli")
WITH_WORLD = ("outcome", "size", "splits", "covariates")
UNUSED_BY_STIMULI = ("model", "predictors", "directions", "doses", "arms", "gate")

Raw = dict[str, Any]


def broken(raw: Raw) -> list[Finding]:
    """Every broken rule of a study that was read but not yet validated."""
    rules = (
        _source, _images_of_a_world, _world, _delivery, _network, _foreign, _directions, _survey, _hypotheses, _analysis
    )  # fmt: skip
    return [finding for rule in rules for finding in rule(raw)]


def _at(raw: Raw, *loc: str | int) -> Any:
    """The value at a place, None where there is none."""
    value: Any = raw
    for part in loc:
        if isinstance(value, dict) and isinstance(part, str):
            value = value.get(part)
        elif isinstance(value, list) and isinstance(part, int) and part < len(value):
            value = value[part]
        else:
            return None
    return value


def _section(raw: Raw, *loc: str | int) -> Raw:
    value = _at(raw, *loc)
    return value if isinstance(value, dict) else {}


def _items(raw: Raw, *loc: str | int) -> list[Any]:
    value = _at(raw, *loc)
    return value if isinstance(value, list) else []


def _words(words: Iterable[str]) -> str:
    return ", ".join(words) or "none are declared"


def _unknown(loc: Loc, word: str, known: Iterable[str], suffix: str = "") -> Finding:
    known = tuple(known)
    return Finding(loc, shown(word), _words(known) + suffix, nearest(word, known))


def _source(raw: Raw) -> Iterator[Finding]:
    given = [name for name in SOURCES if raw.get(name) is not None]
    if not given:
        yield Finding((), "no source of pictures", "one of world, images, stimuli")
    if "stimuli" in given:
        for name in given:
            if name != "stimuli":
                yield Finding(
                    (name,), f"'{name}' beside 'stimuli'", "one source of pictures: world, images or stimuli"
                )
        for name in UNUSED_BY_STIMULI:
            if name in raw:
                allowed = "with stimuli: survey, hypotheses and review (finished stimuli are not edited)"
                yield Finding((name,), f"'{name}' beside 'stimuli'", allowed)
    elif given == ["images"] and isinstance(raw["images"], dict) and raw["images"].get("manifest") is None:
        yield Finding(
            ("images", "manifest"), "nothing", "a CSV or Parquet manifest (or a world in place of images)"
        )


def _images_of_a_world(raw: Raw) -> Iterator[Finding]:
    if raw.get("world") is None:
        return
    for name in _section(raw, "images"):
        if name in schema.Images.model_fields and name not in WITH_WORLD:
            found = f"'{name}', which a rendered world would ignore"
            yield Finding(("images", name), found, f"beside a world: {_words(WITH_WORLD)}")
    column = _at(raw, "images", "outcome", "column")
    if isinstance(column, str) and column != "outcome":
        yield Finding(
            ("images", "outcome", "column"), shown(column), "outcome, as the world calls it", "outcome"
        )
    factors = _covariates(raw)
    for name in _section(raw, "images", "covariates"):
        if name not in factors:
            yield _unknown(("images", "covariates", name), name, factors)


def _world(raw: Raw) -> Iterator[Finding]:
    if not isinstance(raw.get("world"), dict):
        return
    factors = _covariates(raw)
    cause, nuisance = (_world_word(raw, role) for role in ("cause", "nuisance"))
    for role, word in (("cause", cause), ("nuisance", nuisance)):
        if isinstance(word, str) and word not in factors:
            yield _unknown(("world", role), word, factors)
    if isinstance(cause, str) and cause == nuisance:
        role = "nuisance" if "nuisance" in raw["world"] else "cause"
        yield Finding(("world", role), shown(cause), "a cause and a nuisance that differ")


def _world_word(raw: Raw, key: str) -> Any:
    return _section(raw, "world").get(key, schema.World.model_fields[key].default)


def _covariates(raw: Raw) -> tuple[str, ...]:
    """What may be held: the factors of the world, or the covariates of the manifest."""
    if raw.get("world") is not None:
        # A misspelt world is told by the schema; its factors are taken for those of `faces` meanwhile.
        return WORLD_FACTORS.get(str(_world_word(raw, "name")), WORLD_FACTORS["faces"])
    return tuple(_section(raw, "images", "covariates"))


def _delivery(raw: Raw) -> Iterator[Finding]:
    side, size = _at(raw, "images", "delivery"), _at(raw, "images", "size")
    size = schema.Images.model_fields["size"].default if size is None else size
    if type(side) is int and type(size) is int and side < size:
        yield Finding(("images", "delivery"), f"{side} px", f"at least the {size} px of images.size")


def _network(raw: Raw) -> Iterator[Finding]:
    channels = _section(raw, "model").get("channels", list(schema.Model.model_fields["channels"].default))
    patch = _section(raw, "model").get("patch", schema.Model.model_fields["patch"].default)
    size = _section(raw, "images").get("size", schema.Images.model_fields["size"].default)
    if not isinstance(channels, list) or not all(type(width) is int and width > 0 for width in channels):
        return
    if not channels:
        yield Finding(("model", "channels"), "an empty list", "one number a level, multiples of 8")
    for index, width in enumerate(channels):
        if width % 8:
            yield Finding(("model", "channels", index), shown(width), "a multiple of 8")
    if _at(raw, "model", "autoencoder") is not None or _at(raw, "model", "images_seen") == 0:
        return  # the side is that of the latents, or the model brings its own
    halvings = len(channels) - 1
    if channels and type(patch) is int and type(size) is int and patch > 0 and size % (patch * 2**halvings):
        found = f"{len(channels)} levels for {size} px with patches of {patch}"
        allowed = (
            f"a side that can be halved {halvings} times: fewer levels, a smaller patch or larger images"
        )
        yield Finding(("model", "channels"), found, allowed)


def _foreign(raw: Raw) -> Iterator[Finding]:
    """What a model of somebody else, or of latents, cannot do."""
    model = _section(raw, "model")
    as_it_is, latents = model.get("images_seen") == 0, model.get("autoencoder") is not None
    if as_it_is and model.get("start", "scratch") == "scratch":
        yield Finding(("model", "images_seen"), "0 from scratch", "a number above 0, or `start`, a model's folder")
    if latents and model.get("augment") is True:
        yield Finding(("model", "augment"), "true with an autoencoder", "false: latents cannot be mirrored or tinted")
    for name in _section(raw, "directions"):
        one = _section(raw, "directions", name)
        kind, mask = one.get("kind", "condition"), _at(one, "edit", "mask")
        if as_it_is and kind in ("condition", "slider"):
            allowed = "guidance, contrast, latent: a model taken as it is has no conditions (or images_seen above 0)"
            yield Finding(("directions", name, "kind"), shown(kind), allowed)
        if as_it_is and mask == "conditions":
            allowed = "another mask: a model taken as it is has no conditions"
            yield Finding(("directions", name, "edit", "mask"), shown(mask), allowed)
        if latents and kind in ("noise_aware", "slider"):
            allowed = "condition, guidance, contrast, latent, text: the others learn from pixels, and here latents are noisy"
            yield Finding(("directions", name, "kind"), shown(kind), allowed)


def _directions(raw: Raw) -> Iterator[Finding]:
    if raw.get("stimuli") is not None:
        return
    if not raw.get("directions") and any(raw.get(name) is not None for name in SOURCES):
        yield Finding(
            ("directions",), "nothing", "at least one direction: what is to change, and what is held"
        )
    covariates = _covariates(raw)
    declared = _section(raw, "images", "covariates")
    protected = {name for name in declared if _at(raw, "images", "covariates", name, "protected") is True}
    if _at(raw, "images", "outcome", "protected") is True:
        protected.add("outcome")
    for name, direction in _section(raw, "directions").items():
        if not isinstance(direction, dict):
            continue
        here = ("directions", name)
        target = direction.get("target", schema.Direction.model_fields["target"].default)
        if isinstance(target, str):
            yield from _target(raw, here, target, covariates)
            if target in protected and not str(direction.get("audit") or "").strip():
                found = f"'{target}', a protected attribute"
                yield Finding(
                    (*here, "target"), found, "a target that is not protected, or `audit:` with the reason"
                )
        yield from _aim(raw, here, direction, target, declared)
        yield from _arithmetic(raw, here, name, direction)
        yield from _mask(raw, here, direction, target)
        held = _items(direction, "hold")
        for index, word in enumerate(held):
            if not isinstance(word, str):
                continue
            if word == target:
                yield Finding(
                    (*here, "hold", index), f"the target '{word}'", "covariates that stay where they are"
                )
            elif word in held[:index]:
                yield Finding((*here, "hold", index), f"'{word}' a second time", "each covariate once")
            elif word not in covariates:
                yield _unknown((*here, "hold", index), word, covariates)
            elif word not in declared:
                allowed = "a covariate declared under images.covariates, whose probe and condition hold it"
                yield Finding((*here, "hold", index), shown(word), allowed)


READING = ("guidance", "contrast", "text")
"""Kinds that follow a reading of the picture, so that another direction can be made orthogonal to them."""


def _aim(raw: Raw, here: Loc, direction: Raw, target: Any, declared: Raw) -> Iterator[Finding]:
    """A covariate that is aimed at needs its values: they train the instrument that doses it."""
    if isinstance(target, str) and target in _covariates(raw) and target not in declared:
        allowed = "a covariate declared under images.covariates, whose instrument gives the dose"
        yield Finding((*here, "target"), shown(target), allowed)


def _mask(raw: Raw, here: Loc, direction: Raw, target: Any) -> Iterator[Finding]:
    mask = _at(direction, "edit", "mask")
    if mask == "manifest" and _at(raw, "images", "mask") is None:
        allowed = "with `images.mask`, the manifest's column of masks"
        yield Finding((*here, "edit", "mask"), shown(mask), allowed)
    every = [each for each in _section(raw, "directions").values() if isinstance(each, dict)]
    conditions = {"outcome", *(word for each in every for word in _items(each, "hold") if isinstance(word, str))}
    conditions |= {str(each.get("target")) for each in every if each.get("kind", "condition") == "condition"}
    if mask == "conditions" and isinstance(target, str) and target not in conditions:
        allowed = f"with a target that is a condition of the model: {_words(sorted(conditions - {'None'}))}"
        yield Finding((*here, "edit", "mask"), shown(mask), allowed)


def _arithmetic(raw: Raw, here: Loc, name: str, direction: Raw) -> Iterator[Finding]:
    others = {
        other: _section(raw, "directions", other).get("kind", "condition")
        for other in _section(raw, "directions")
        if other != name
    }
    parts, away = list(_section(direction, "sum")), _items(direction, "orthogonal_to")
    for key, words in (("sum", parts), ("orthogonal_to", away)):
        for index, word in enumerate(words):
            at: Loc = (*here, key, word if key == "sum" else index)
            if not isinstance(word, str):
                continue
            if word not in others:
                yield _unknown(at, word, others)
            elif others[word] == "arithmetic":
                yield Finding(at, f"'{word}', itself arithmetic", "directions of other kinds")
            elif away and others[word] not in READING:
                allowed = f"with orthogonal_to: directions of kind {' or '.join(READING)}, which follow a reading"
                yield Finding(at, f"'{word}', of kind {others[word]}", allowed)
            elif key == "orthogonal_to" and word in parts:
                yield Finding(at, f"'{word}', which is also in the sum", "directions outside the sum")


def _target(raw: Raw, here: Loc, target: str, covariates: tuple[str, ...]) -> Iterator[Finding]:
    if target == "outcome" or target in covariates:
        return
    if target == _at(raw, "images", "outcome", "column"):
        allowed = _words(("outcome", *covariates))
        yield Finding(
            (*here, "target"), shown(target), f"{allowed} (the outcome is always called outcome)", "outcome"
        )
    else:
        yield _unknown((*here, "target"), target, ("outcome", *covariates))


def _survey(raw: Raw) -> Iterator[Finding]:
    simulated = raw.get("world") is not None
    survey = raw.get("survey")
    if survey is None:
        if raw.get("hypotheses"):
            yield Finding(("survey",), "nothing", "a survey, because the study has hypotheses")
        elif raw.get("stimuli") is not None:
            yield Finding(("survey",), "nothing", "a survey, because the study brings finished stimuli")
    elif isinstance(survey, dict):
        respondents = survey.get("respondents")
        if simulated and respondents is None:
            allowed = "simulated respondents: people are not asked about a rendered world"
            yield Finding(("survey", "respondents"), "nothing", allowed)
        elif not simulated and respondents is not None:
            allowed = "people: respondents are simulated for a rendered world alone"
            yield Finding(("survey", "respondents"), "simulated respondents", allowed)
        if simulated and isinstance(respondents, dict):
            reads = respondents.get("reads", schema.Respondents.model_fields["reads"].default)
            factors = _covariates(raw)
            if isinstance(reads, str) and reads not in factors:
                yield _unknown(("survey", "respondents", "reads"), reads, factors)
        yield from _repeated(raw, "name", "survey", "questions")
        yield from _design(survey)
        yield from _screening(survey)
        yield from _languages(survey)
        practice = _at(survey, "service", "practice")
        if survey.get("design") == "between_arm" and isinstance(practice, dict) and practice.get("folder") is None:
            allowed = "a folder of other pictures: another list's would show people another arm"
            yield Finding(("survey", "service", "practice"), "practice on the study's own pictures with design between_arm", allowed)


def _screening(survey: Raw) -> Iterator[Finding]:
    """Quotas that cannot be filled."""
    here: Loc = ("survey", "service", "screening")
    wanted = survey.get("participants", schema.Survey.model_fields["participants"].default)
    for index in range(len(_items(survey, *here[1:]))):
        try:
            one = schema.Screening.model_validate(_section(survey, *here[1:], index))
        except ValueError:
            continue
        if type(wanted) is int and one.room is not None and one.room < wanted:
            found = f"room for {one.room} people, while survey.participants is {wanted}"
            yield Finding((*here, index, "quotas"), found, f"quotas that add up to {wanted} or more")
    yield from _repeated(survey, "name", "service", "screening", under=("survey",))


def _languages(survey: Raw) -> Iterator[Finding]:
    """What a translation lacks, or has too much."""
    own = survey.get("language", schema.Survey.model_fields["language"].default)
    if survey.get("languages") and not isinstance(survey.get("service"), dict):
        yield Finding(("survey", "languages"), "languages without `service`", "with pages of our own alone: files are in one language")
        return
    questions = {q.get("name"): q for q in _items(survey, "questions") if isinstance(q, dict)}
    screened = {q.get("name"): q for q in _items(survey, "service", "screening") if isinstance(q, dict)}
    checks = _items(survey, "service", "comprehension")
    for language in _section(survey, "languages"):
        here: Loc = ("survey", "languages", language)
        one = _section(survey, "languages", language)
        if language not in get_args(schema.Language) or not isinstance(survey["languages"][language], dict):
            continue
        if language == own:
            yield Finding(here, f"{shown(language)}, the study's own language", "other languages")
        for key, wanted in (("questions", questions), ("screening", screened)):
            given = _section(one, key)
            for name in wanted:
                if isinstance(name, str) and name not in given:
                    yield Finding((*here, key), f"no words for '{name}'", f"all of {_words(str(each) for each in wanted)}")
            for name in given:
                if name not in wanted:
                    yield _unknown((*here, key, name), str(name), [str(each) for each in wanted])
        for name, question in questions.items():
            words = _section(one, "questions", str(name))
            for end in ("low", "high") if question.get("scale", "vas") in ("vas", "likert7", "best_worst") else ():
                if words and words.get(end) is None:
                    yield Finding((*here, "questions", str(name)), f"no `{end}`", "both ends of the scale")
        pairs = [((*here, "screening", str(name)), question, _section(one, "screening", str(name))) for name, question in screened.items()]
        translated = _items(one, "comprehension")
        if len(translated) != len(checks):
            yield Finding((*here, "comprehension"), f"{len(translated)} questions on the instructions", f"{len(checks)}, as in the study")
        pairs += [((*here, "comprehension", k), *two) for k, two in enumerate(zip(checks, translated, strict=False))]
        for loc, first, other in pairs:
            options, others = _items(first, "options"), _items(other, "options")
            if other and len(options) != len(others):
                yield Finding((*loc, "options"), f"{len(others)} options", f"{len(options)}, in the same order as in the study")


def _design(survey: Raw) -> Iterator[Finding]:
    """Scales and keys that belong to the design."""
    design = survey.get("design", schema.Survey.model_fields["design"].default)
    if design not in schema.DESIGN_SCALES:
        return
    allowed = schema.DESIGN_SCALES[design]
    given = []
    for index in range(len(_items(survey, "questions"))):
        question = _section(survey, "questions", index)
        scale = question.get("scale", schema.Question.model_fields["scale"].default)
        given.append(scale)
        if isinstance(scale, str) and scale in get_args(schema.Scale) and scale not in allowed:
            loc: Loc = ("survey", "questions", index, *(["scale"] if "scale" in question else []))
            yield Finding(loc, f"scale {shown(scale)}", f"with design {design}: {_words(allowed)}")
        name = question.get("name")
        if scale == "best_worst" and isinstance(name, str) and len(name) > 42:
            yield Finding(("survey", "questions", index, "name"), shown(name), "at most 42 signs")
    if given and set(given) == {"text"}:
        yield Finding(("survey", "questions"), "free text alone", f"a question on a scale of {_words(allowed[:-1])}")
    if given.count("text") > 2:
        yield Finding(("survey", "questions"), f"{given.count('text')} free texts", "two at most: people tire of writing")
    trials, repeats = (survey.get(key, schema.Survey.model_fields[key].default) for key in ("trials_per_participant", "repeats"))
    if type(trials) is int and type(repeats) is int and repeats > max(trials // 2, 0):
        yield Finding(("survey", "repeats"), str(repeats), f"at most {max(trials // 2, 0)}, half of trials_per_participant")
    elif design == "guess" and repeats:
        yield Finding(("survey", "repeats"), "'repeats' with design guess", "none: of a second guess people know the answer")
    if design != "guess" and _at(survey, "pay", "bonus"):
        yield Finding(("survey", "pay", "bonus"), f"a bonus with design {design}", "with design guess alone, where answers are right or wrong")
    for key, only in (("compare", "pairs"), ("set_size", "best_worst")):
        if survey.get(key) and design != only:
            yield Finding(("survey", key), f"'{key}' with design {design}", f"`{key}` with design {only} alone")


def _hypotheses(raw: Raw) -> Iterator[Finding]:
    hypotheses = _items(raw, "hypotheses")
    if not hypotheses and raw.get("stimuli") is not None:
        yield Finding(
            ("hypotheses",), "nothing", "at least one hypothesis, because the study brings finished stimuli"
        )
    yield from _repeated(raw, "id", "hypotheses")
    directions = tuple(_section(raw, "directions"))
    questions = [
        _at(raw, "survey", "questions", k, "name") for k in range(len(_items(raw, "survey", "questions")))
    ]
    asked = [name for name in questions if isinstance(name, str)]
    off = _arms_off(raw)
    primary = []
    for index in range(len(hypotheses)):
        one, here = _section(raw, "hypotheses", index), ("hypotheses", index)
        direction, question = one.get("direction"), one.get("question")
        if isinstance(direction, str) and raw.get("stimuli") is None and direction not in directions:
            yield _unknown((*here, "direction"), direction, directions)
        if isinstance(question, str) and isinstance(raw.get("survey"), dict) and question not in asked:
            yield _unknown((*here, "question"), question, asked)
        elif question in asked and _at(raw, "survey", "questions", questions.index(question), "scale") == "text":
            yield Finding((*here, "question"), f"{shown(question)}, which is answered in free words", "a question that can be tested")
        arm = one.get("arm", schema.Hypothesis.model_fields["arm"].default)
        for name in str(arm).split("-"):
            if name in off:
                allowed = [each for each in schema.CONTRASTS if not off.intersection(each.split("-"))]
                found = f"{shown(arm)}, while the {name} arm is off"
                yield Finding((*here, "arm"), found, f"{_words(allowed)} (or arms.{name} switched on)")
        if one.get("primary") is True:
            primary.append(index)
    if hypotheses and len(primary) != 1:
        loc: Loc = ("hypotheses", primary[1], "primary") if primary else ("hypotheses",)
        yield Finding(
            loc, f"{len(primary)} primary hypotheses", "exactly one hypothesis with `primary: true`"
        )


def _analysis(raw: Raw) -> Iterator[Finding]:
    scales = {
        name: _at(raw, "survey", "questions", k, "scale") or schema.Question.model_fields["scale"].default
        for k in range(len(_items(raw, "survey", "questions")))
        if isinstance(name := _at(raw, "survey", "questions", k, "name"), str)
    }
    for question, estimator in _section(raw, "analysis", "estimators").items():
        here = ("analysis", "estimators", question)
        if question not in scales:
            yield _unknown(here, question, scales)
        elif estimator == "ordinal" and scales[question] == "vas":
            yield Finding(here, "'ordinal' for a slider from 0 to 100", "linear: so fine a scale has no steps", "linear")
        elif estimator in get_args(schema.Estimator) and estimator not in (known := schema.ESTIMATORS.get(scales[question], ())):
            yield Finding(here, f"{shown(estimator)} for scale {scales[question]}", _words(known) if known else "no estimator of free words")

    declared = tuple(_section(raw, "images", "covariates"))
    for index, name in enumerate(_items(raw, "analysis", "heterogeneity")):
        if isinstance(name, str) and name not in declared:
            yield _unknown(("analysis", "heterogeneity", index), name, declared)
    check = _at(raw, "analysis", "manipulation_check")
    if isinstance(check, str) and scales.get(check) not in schema.NUMBERS:
        numbers = [name for name, scale in scales.items() if scale in schema.NUMBERS]
        yield _unknown(("analysis", "manipulation_check"), check, numbers)

    hypotheses = [_section(raw, "hypotheses", index) for index in range(len(_items(raw, "hypotheses")))]
    named = {h.get("family", schema.Hypothesis.model_fields["family"].default): h for h in hypotheses}
    for family, correction in _section(raw, "analysis", "families").items():
        here = ("analysis", "families", family)
        if family not in named:
            yield _unknown(here, family, [name for name in named if isinstance(name, str)])
        elif isinstance(correction, dict) and correction.get("method") == "joint":
            own = [h for h in hypotheses if h.get("family", "main") == family]
            if any(h.get("test") == "equivalence" or h.get("alternative") in ("greater", "less") for h in own):
                yield Finding(here, "a joint test of one-sided or equivalence hypotheses", "two-sided differences with method joint")


def _arms_off(raw: Raw) -> set[str]:
    if raw.get("stimuli") is not None:
        return set()
    arms = _section(raw, "arms")
    return {name for name in ("sham", "placebo") if name in arms and arms[name] in (False, 0)}


def _repeated(raw: Raw, key: str, *loc: str, under: Loc = ()) -> Iterator[Finding]:
    seen: set[str] = set()
    for index in range(len(_items(raw, *loc))):
        word = _at(raw, *loc, index, key)
        if isinstance(word, str) and word in seen:
            yield Finding((*under, *loc, index, key), f"{shown(word)} a second time", f"each {key} once")
        elif isinstance(word, str):
            seen.add(word)

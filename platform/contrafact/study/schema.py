"""What a study file may say. Unknown keys are refused; units stand in names or descriptions.

The classes are frozen: a study that was loaded cannot drift from the file that was hashed.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,47}$", description="lower case letters, digits, _")]
Share = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(ge=1)]

SPLITS = ("train", "judge", "validation", "stimuli", "lockbox")
ARMS = ("treated", "null", "sham", "placebo", "raw")
Arm = Literal["treated", "null", "sham", "placebo", "raw"]
CONTRASTS = ("treated", "sham", "placebo", "treated-sham", "treated-placebo")


class Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class World(Part):
    """A rendered world with a planted truth."""

    name: Literal["faces", "products"] = "faces"
    kind: Literal["true", "confounded", "null_outcome", "null_rating", "artefact"] = "true"
    images: Annotated[
        int, Field(ge=200, le=200_000, description="number of rendered images, one unit each")
    ] = 26_000
    cause: Name = Field(default="groom", description="the factor that moves the outcome")
    nuisance: Name = Field(
        default="skin", description="the factor that rides on the cause in a confounded world"
    )
    correlation: Annotated[float, Field(ge=-0.9, le=0.9)] = Field(
        default=0.5, description="correlation of nuisance and cause in a confounded world"
    )
    effect: float = Field(
        default=1.8, description="logit of the outcome per SD of the cause; of a continuous one, SD of its noise"
    )


class Covariate(Part):
    kind: Literal["binary", "continuous"] = "continuous"
    protected: bool = Field(default=False, description="may be held, never aimed at")


class Outcome(Part):
    column: Name = "outcome"
    kind: Literal["binary", "continuous"] = "binary"
    protected: bool = False


class Splits(Part):
    """Shares of units; they add up to 1."""

    train: Share = 0.40
    judge: Share = 0.32
    validation: Share = 0.12
    stimuli: Share = 0.10
    lockbox: Share = 0.06

    @model_validator(mode="after")
    def _whole(self) -> Splits:
        total = sum(getattr(self, name) for name in SPLITS)
        if abs(total - 1) > 1e-6:
            raise ValueError(f"five shares that add up to 1 (these make {total:g})")
        return self


class Images(Part):
    """Where the images come from; a rendered world needs no manifest."""

    manifest: str | None = Field(
        None, description="CSV or Parquet with `image`, the unit, outcome and covariates"
    )
    folder: str | None = Field(None, description="folder against which the manifest's `image` is resolved")
    unit_id: Name = Field(default="unit_id", description="column of the unit (person, product, artist)")
    outcome: Outcome = Outcome()
    covariates: dict[Name, Covariate] = {}
    size: Literal[16, 32, 64, 128] = Field(default=32, description="side of the model's image in pixels")
    delivery: Annotated[int, Field(ge=32, le=1024)] | None = Field(
        default=None, description="side in pixels at which people see the pictures; absent: `size`"
    )
    crop: Literal["none", "face", "boxes"] = Field(
        default="none",
        description="`boxes` reads box_left, box_top, box_width, box_height (pixels) from the manifest",
    )
    crop_margin: float = Field(
        default=0.15, ge=-0.2, le=1, description="`crop: face`: share of the face's width added on each side"
    )
    splits: Splits = Splits()
    extra: str | None = Field(None, description="manifest of unlabelled images for the generator alone")
    mask: Name | None = Field(
        default=None,
        description="column of the manifest with a mask a picture, of the picture's size: white may change",
    )


class Model(Part):
    """The conditional diffusion model."""

    start: str = Field(default="scratch", description="`scratch`, or a diffusers model folder to fine-tune")
    autoencoder: str | None = Field(
        default=None, description="folder of a diffusers AutoencoderKL: the model then works on its latents"
    )
    prediction: Literal["v", "epsilon", "sample"] = "v"
    schedule: Literal["cosine", "linear"] = "cosine"
    timesteps: Annotated[int, Field(ge=10, le=4000)] = 1000
    channels: tuple[Count, ...] = Field(
        default=(64, 96, 128), description="channels of each level; multiples of 8"
    )
    patch: Literal[1, 2, 4] = Field(default=2, description="pixels folded into channels, a side")
    condition_dropout: Share = 0.1
    images_seen: Annotated[int, Field(ge=0)] = Field(
        default=110_000, description="images shown in training, repeats counted; 0 takes `start` as it is"
    )
    batch: Count = 32
    learning_rate: Positive = 1e-3
    warmup_steps: Annotated[int, Field(ge=0)] = 300
    ema_halflife_images: Positive = Field(
        default=11_000, description="half-life of the weight average, in images"
    )
    clip_norm: Positive = 1.0
    augment: bool = Field(default=False, description="mirror, shift and tint the training images")
    mixed_precision: Literal["auto", "off"] = "auto"
    checkpoint_images: Count = Field(default=10_000, description="images between checkpoints")


class Predictor(Part):
    heads: Count = 1
    epochs: Count = 6
    batch: Count = 64
    learning_rate: Positive = 2e-3
    denoised_share: Share = Field(
        default=0.5, description="share of each batch that was noised and denoised again"
    )
    augment: bool = False


class Guide(Predictor):
    steering_share: Annotated[float, Field(gt=0, le=1)] = Field(
        default=1.0,
        description="share of the train units whose guide steers; below 1 a guide of the other units, which gives no "
        "gradient, reads levels and doses",
    )


class Predictors(Part):
    guide: Guide = Guide(heads=3)
    judge: Predictor = Predictor(denoised_share=0.0)
    probe: Predictor = Predictor(denoised_share=0.0)
    bootstrap: Count = Field(default=1000, description="resamples of units behind each interval")


class Edit(Part):
    """How a direction is followed."""

    inversion: Literal["direct", "edit_friendly", "noised"] = Field(
        default="direct",
        description="`noised` covers the image with noise and draws it anew: dose 0 is then another picture",
    )
    depth: Annotated[float, Field(gt=0, le=1)] = Field(
        default=0.65, description="share of the noise schedule inverted"
    )
    steps: Annotated[int, Field(ge=2, le=1000)] = 10
    guidance_weight: Annotated[float, Field(ge=-1, le=50)] | None = Field(
        default=None,
        description="w of (1+w) conditional - w unconditional; 0, the default, is plain conditional",
    )
    guidance_scale: Annotated[float, Field(ge=0, le=51)] | None = Field(
        default=None, description="the same as s = 1 + w (1 is plain conditional); one of the two"
    )
    secant_steps: Annotated[int, Field(ge=0, le=8)] = Field(
        default=2, description="corrections on the guide's reading"
    )
    mask_quantile: Annotated[float, Field(ge=0, lt=1)] = Field(
        default=0.75, description="soft threshold of the automatic mask; 0 is no mask"
    )
    mask: Literal["change", "saliency", "conditions", "manifest"] | tuple[Share, Share, Share, Share] = Field(
        default="change",
        description="where the picture may change: found from the change itself, from the guide's gradient or from "
        "the model's own difference; a picture named in the manifest; or a box [left, top, width, height], shares",
    )
    style: Literal["colour", "light"] | None = Field(
        default=None, description="only a colour map of the whole, or only soft light, may change"
    )
    trust_radius: Positive = Field(
        default=0.1, description="largest RMS of one guidance step, images in [-1, 1]"
    )
    smooth_draws: Annotated[int, Field(ge=0, le=64)] = Field(
        default=0, description="`guidance`: noise draws that the guide's gradient is averaged over; 0 is none"
    )
    smooth_sd: Positive = Field(default=0.1, description="SD of that noise, images in [-1, 1]")
    batch: Count = Field(default=32, description="images edited at once")

    @model_validator(mode="after")
    def _one_convention(self) -> Edit:
        if self.guidance_weight is not None and self.guidance_scale is not None:
            raise ValueError("guidance_weight w or guidance_scale s = 1 + w, one of them")
        return self

    @model_validator(mode="after")
    def _one_mask(self) -> Edit:
        found = self.mask in ("saliency", "conditions") or (self.mask == "change" and self.style is None)
        if "mask_quantile" in self.model_fields_set and not found and self.mask_quantile > 0:
            raise ValueError("`mask_quantile` with an automatic mask alone, without `style`")
        if isinstance(self.mask, tuple):
            left, top, width, height = self.mask
            if min(width, height) <= 0 or max(left + width, top + height) > 1 + 1e-9:
                raise ValueError("`mask` as left, top, width and height of a box inside the image, shares of its side")
        return self

    @property
    def change_quantile(self) -> float:
        """The quantile of the mask that looks at the change itself; 0 where there is none."""
        return self.mask_quantile if self.mask == "change" and self.style is None else 0.0

    @property
    def w(self) -> float:
        """The extra guidance w; s = 1 + w."""
        return (self.guidance_scale - 1) if self.guidance_scale is not None else (self.guidance_weight or 0.0)


class Slider(Part):
    """The adapter of a `slider`."""

    rank: Annotated[int, Field(ge=1, le=64)] = 4
    images_seen: Count = Field(default=16_000, description="images shown in training, repeats counted")
    batch: Count = 32
    learning_rate: Positive = 2e-3


class Text(Part):
    """What a `text` direction goes by."""

    model: Annotated[str, Field(description="folder of an open_clip model: open_clip_config.json and a .safetensors file")]
    start: Annotated[str, Field(min_length=1, max_length=300, description="phrase of what negative doses go to")]
    end: Annotated[str, Field(min_length=1, max_length=300, description="phrase of what positive doses go to")]


class Direction(Part):
    """What is to change, and what must not."""

    kind: Literal["condition", "guidance", "contrast", "arithmetic", "noise_aware", "latent", "slider", "text"] = Field(
        default="condition",
        description="how the picture is moved; docs/directions.md has every kind",
    )
    target: Name = Field(default="outcome", description="the outcome, or a covariate that is not protected")
    hold: tuple[Name, ...] = ()
    audit: str | None = Field(
        None, description="why a protected attribute is aimed at; without it that is refused"
    )
    between: tuple[float, float] | None = Field(
        default=None,
        description="`contrast`: images at or below the first level of the target against those at or above the second; absent: lower and upper third",
    )
    sum: dict[Name, Annotated[float, Field(ge=-10, le=10)]] = Field(
        default={}, description="`arithmetic`: weights of other directions, by name"
    )
    orthogonal_to: tuple[Name, ...] = Field(
        default=(), description="`arithmetic`: directions whose readings stay where they are"
    )
    space: Literal["bottleneck", "encoder"] | None = Field(
        default=None,
        description="`latent`: shifts of the network's bottleneck, which absent means, or of the code that the image is encoded into",
    )
    slider: Slider | None = Field(default=None, description="`slider`: how its adapter is trained")
    text: Text | None = Field(default=None, description="`text`: model and phrases")
    edit: Edit = Edit()

    @model_validator(mode="after")
    def _own_fields(self) -> Direction:
        if self.between is not None and not self.between[0] < self.between[1]:
            raise ValueError("`between` as a lower and a higher level")
        own = {"between": "contrast", "sum": "arithmetic", "orthogonal_to": "arithmetic", "space": "latent", "slider": "slider", "text": "text"}
        for name, kind in own.items():
            if getattr(self, name) and self.kind != kind:
                raise ValueError(f"`{name}` with kind {kind} alone")
        if self.kind == "arithmetic" and not self.sum:
            raise ValueError("`sum`, the weights of other directions, with kind arithmetic")
        if self.edit.smooth_draws and self.kind != "guidance":
            raise ValueError("`edit.smooth_draws` with kind guidance alone")
        if self.kind == "text" and self.text is None:
            raise ValueError("`text`, the model and two phrases, with kind text")
        return self


class Doses(Part):
    """Requested changes in SD of the outcome score over the validation images; 0 is the null arm."""

    grid: tuple[float, ...] = (-1.5, -0.75, 0.0, 0.75, 1.5)
    support: tuple[Share, Share] = Field(
        default=(0.005, 0.995), description="quantiles of real scores that bound an image"
    )

    @model_validator(mode="after")
    def _ordered(self) -> Doses:
        if len(set(self.grid)) != len(self.grid) or list(self.grid) != sorted(self.grid):
            raise ValueError("a grid of different doses in ascending order")
        if 0.0 not in self.grid or len(self.grid) < 2:
            raise ValueError("a grid that holds 0 (the null arm) and at least one other dose")
        if self.support[0] >= self.support[1]:
            raise ValueError("support as a lower and a higher quantile")
        return self


class Arms(Part):
    treated: Literal[True] = True
    sham: bool = Field(default=True, description="a fresh direction for every image, matched on pixel norm")
    placebo: Annotated[int, Field(ge=0, le=500)] = Field(
        default=12, description="number of label permutations"
    )
    images: Count = Field(
        default=60, description="stimuli images to edit (those in support, in a seeded order)"
    )


class Gate(Part):
    """On quality only, on whole matched sets; never on the reported outcome score."""

    null_error: Positive = Field(default=1e-4, description="largest dose 0 error, range [0, 1]")
    leakage_sd: Positive = Field(
        default=1.0, description="largest absolute leakage of one stimulus, SD of the covariate"
    )
    norm_ratio: tuple[Positive, Positive] = Field(
        default=(0.9, 1.1), description="sham and placebo over treated pixel norm"
    )
    realism: Positive = Field(
        default=10.0, description="largest distance to real features, in SD of real distances"
    )
    artefact_auc: Share = Field(default=0.9, description="a set of directions above it is stopped")


class Card(Part):
    """Networks from elsewhere that help to measure pictures; without one, what it measures is not estimable."""

    clip: str | None = Field(
        default=None,
        description="folder of an open_clip model: likeness of edited and unedited pictures, near-duplicates across splits",
    )
    vgg: str | None = Field(
        default=None, description="weights of a VGG-16 (.safetensors): perceptual distance of edited and unedited pictures"
    )


class Review(Part):
    required: bool = Field(
        default=False, description="the run stops before registration until people have reviewed"
    )


Scale = Literal["vas", "likert7", "choice", "best_worst", "best", "worst", "text"]
NUMBERS = {"vas": (0.0, 100.0), "likert7": (1.0, 7.0)}  # ends of the scales on which one picture is rated
Estimator = Literal["linear", "ordinal", "logit"]
ESTIMATORS: dict[str, tuple[Estimator, ...]] = {  # what can test the claims on a scale; the first does unless the study says
    "vas": ("linear",),
    "likert7": ("ordinal", "linear"),
    "choice": ("logit", "linear"),
    "best_worst": ("linear", "logit"),
}
PLACES = ("choice", "best", "worst")  # scales whose value is the place, from 1, of one picture of several
DESIGN_SCALES: dict[str, tuple[Scale, ...]] = {
    "within_image": ("vas", "likert7", "text"),
    "between_arm": ("vas", "likert7", "text"),
    "pairs": ("choice", "text"),
    "guess": ("choice", "text"),
    "best_worst": ("best_worst", "text"),
}


SET_SIZE = 4  # pictures of a best-worst trial where the study does not say


def at_once(design: object, set_size: object) -> int:
    """How many pictures a trial of a design shows side by side."""
    if design == "best_worst":
        return set_size if type(set_size) is int else SET_SIZE
    return 2 if design in ("pairs", "guess") else 1


class Question(Part):
    name: Name
    text: Annotated[str, Field(min_length=3, max_length=500)]
    low: Annotated[str, Field(max_length=80)] = "not at all"
    high: Annotated[str, Field(max_length=80)] = "very much"
    scale: Scale = Field(
        default="vas",
        description="`vas` is 0 to 100, `likert7` 1 to 7; `choice` and `best_worst` name a picture of several by its "
        "place, from 1; `text` is free",
    )

    def parts(self) -> tuple[Question, ...]:
        """The answers that it asks for: one, or the best picture (``NAME_best``) and the worst (``NAME_worst``)."""
        if self.scale != "best_worst":
            return (self,)
        return tuple(
            self.model_copy(update={"name": f"{self.name}_{end}", "text": f"{self.text} ({label})", "scale": end})
            for end, label in (("best", self.high), ("worst", self.low))
        )


class Respondents(Part):
    """Simulated people, who see pixels through the reader alone."""

    reads: Name = Field(default="groom", description="factor of the world that answers depend on")
    slope: float = Field(default=12.0, description="rating points per SD of the factor that is read")
    participant_sd: Annotated[float, Field(ge=0)] = Field(default=8.0, description="rating points")
    participant_slope_sd: Annotated[float, Field(ge=0)] = Field(
        default=3.0, description="rating points per SD"
    )
    image_sd: Annotated[float, Field(ge=0)] = Field(default=6.0, description="rating points")
    image_slope_sd: Annotated[float, Field(ge=0)] = Field(default=2.0, description="rating points per SD")
    noise_sd: Annotated[float, Field(ge=0)] = Field(default=12.0, description="rating points")
    lapse: Share = Field(default=0.03, description="share of answers that are uniform draws")
    inattentive: Share = Field(default=0.05, description="share of participants who answer without looking")
    dropout: Share = Field(default=0.0, description="chance at each picture that somebody leaves for good")
    dropout_mark: float = Field(default=0.0, description="log odds of leaving per SD of the mark of editing")
    mishaps: Share = Field(
        default=0.0,
        description="share of participants with double clicks, two tabs, reloads or a bad network (with `survey.service`)",
    )
    mark_slope: float = Field(
        default=0.0, description="rating points per SD of the mark of editing (artefact world)"
    )


class Pay(Part):
    currency: Literal["GBP", "USD", "EUR"] = "GBP"
    hourly: Annotated[float, Field(ge=0)] = 9.0
    minutes: Annotated[float, Field(gt=0)] = 8.0
    bonus: Annotated[float, Field(ge=0, le=10, multiple_of=0.01)] = Field(default=0.0, description="for each right guess")
    fee_share: Annotated[float, Field(ge=0)] = Field(
        default=0.33, description="the panel's fee on top of pay"
    )


class ModelRespondent(Part):
    """A vision model that answers the study's questions beside people, never among them."""

    address: Annotated[
        str, Field(pattern=r"^https?://[^\s\"'<>{}?#]+$", max_length=300, description="OpenAI-compatible, without /chat/...")
    ]
    model: Annotated[str, Field(min_length=1, max_length=200)]
    key: Annotated[str, Field(pattern=r"^[A-Z][A-Z0-9_]{0,63}$")] | None = Field(
        default=None, description="environment variable that holds the key; absent: none is sent"
    )
    rating: Literal["direct", "similarity"] = Field(
        default="direct", description="`direct` asks for a number; `similarity` for a sentence that is compared with anchors"
    )
    embedding: str | None = Field(default=None, description="model of embeddings, for `similarity`")
    temperature: Annotated[float, Field(ge=0, le=2)] = 0.0
    repeats: Annotated[int, Field(ge=1, le=100)] = Field(default=1, description="answers for each picture, question and order")
    requests_per_minute: Annotated[float, Field(gt=0, le=100_000)] = 60
    tokens_per_picture: Count = Field(default=300, description="for the estimate of cost")
    price_in: Annotated[float, Field(ge=0)] | None = Field(default=None, description="money for a million tokens in")
    price_out: Annotated[float, Field(ge=0)] | None = Field(default=None, description="money for a million tokens out")

    @model_validator(mode="after")
    def _embedding(self) -> ModelRespondent:
        if (self.rating == "similarity") != (self.embedding is not None):
            raise ValueError("`embedding` with similarity ratings, and none with direct ones")
        return self


class Panel(Part):
    """Where people come from, and what the panel tells them."""

    provider: Literal["prolific", "connect", "sona", "link"] = "prolific"
    address: Annotated[
        str, Field(pattern=r"^https://[^\s\"'<>{}]+$", max_length=500, description="where the survey service is reached")
    ]
    description: Annotated[str, Field(min_length=10, max_length=2000, description="what people read before they begin")]
    devices: Annotated[tuple[Literal["desktop", "tablet", "mobile"], ...], Field(min_length=1)] = (
        "desktop", "tablet", "mobile",
    )  # fmt: skip
    maximum_minutes: Annotated[float, Field(ge=1, le=1440)] | None = Field(
        default=None, description="time after which a place is given away; absent: three times the minutes and two"
    )
    filters: tuple[dict[str, Any], ...] = Field(default=(), description="filters as Prolific's API takes them")
    signed: bool = Field(
        default=False, description="provider `link`: only links made by `contrafact panel link --people` are let in"
    )

    @model_validator(mode="after")
    def _own_links(self) -> Panel:
        if self.signed and self.provider != "link":
            raise ValueError("`signed` with provider link alone: a panel cannot sign its links with the study's secret")
        return self


Option = Annotated[str, Field(min_length=1, max_length=200)]


class Comprehension(Part):
    """A question on the instructions; ``answer`` is the option that shows that they were understood."""

    text: Annotated[str, Field(min_length=3, max_length=500)]
    options: Annotated[tuple[Option, ...], Field(min_length=2, max_length=8)]
    answer: str

    @model_validator(mode="after")
    def _among(self) -> Comprehension:
        if self.answer not in self.options or len(set(self.options)) != len(self.options):
            raise ValueError("different options, and `answer` as one of them")
        return self


class Screening(Part):
    """A question before anybody has a list: who may go on, and how many of each answer."""

    name: Name
    text: Annotated[str, Field(min_length=3, max_length=500)]
    options: Annotated[tuple[Option, ...], Field(min_length=2, max_length=20)]
    admit: Annotated[tuple[Option, ...], Field(min_length=1, description="answers that go on; absent: all")] | None = None
    quotas: dict[Option, Count] = Field(default={}, description="participants of an answer at most; absent: no bound")

    @model_validator(mode="after")
    def _among(self) -> Screening:
        if len(set(self.options)) != len(self.options) or not set(self.admitted) <= set(self.options):
            raise ValueError("different options, and `admit` from among them")
        if not set(self.quotas) <= set(self.admitted):
            raise ValueError("`quotas` of answers that go on")
        return self

    @property
    def admitted(self) -> tuple[str, ...]:
        return self.options if self.admit is None else self.admit

    @property
    def room(self) -> int | None:
        """How many people the quotas let in, None where an answer has no bound."""
        return sum(self.quotas.values()) if set(self.quotas) == set(self.admitted) else None


class Practice(Part):
    """Trials before the first that counts. Nothing of them is sent or kept."""

    trials: Annotated[int, Field(ge=1, le=20)] = 3
    folder: str | None = Field(
        default=None, description="pictures for them, by their names; absent: pictures of the study, from another list"
    )


class Service(Part):
    """What people meet where `contrafact survey serve` fields the study. Texts are plain; an empty line parts
    paragraphs."""

    consent: Annotated[str, Field(min_length=20, max_length=20_000, description="what people agree to")]
    screening: Annotated[tuple[Screening, ...], Field(max_length=10)] = ()
    instructions: Annotated[str, Field(min_length=10, max_length=20_000)]
    comprehension: Annotated[tuple[Comprehension, ...], Field(max_length=10)] = ()
    practice: Practice | None = None
    breaks: Annotated[int, Field(ge=2, le=1000, description="trials between two breaks")] | None = None
    debrief: Annotated[str, Field(min_length=10, max_length=20_000, description="told after the last answer")]
    contact: Annotated[str, Field(min_length=3, max_length=300, description="whom people can ask")]
    lease_minutes: Annotated[float, Field(ge=1, le=1440)] = Field(
        default=30, description="minutes after the last answer until a list goes to somebody else"
    )
    retention_days: Annotated[int, Field(ge=1, le=3650)] = Field(
        default=90, description="days after which the panel's ids are deleted"
    )


Language = Literal["en", "de", "fr", "es", "zh"]  # those that service/pages/words.json has words for


class Wording(Part):
    """A question in another language; ``low`` and ``high`` where its scale has ends."""

    text: Annotated[str, Field(min_length=2, max_length=500)]
    low: Annotated[str, Field(min_length=1, max_length=80)] | None = None
    high: Annotated[str, Field(min_length=1, max_length=80)] | None = None


class Offered(Part):
    """A question with options in another language: the same options, in the same order."""

    text: Annotated[str, Field(min_length=2, max_length=500)]
    options: Annotated[tuple[Option, ...], Field(min_length=2, max_length=20)]

    @model_validator(mode="after")
    def _different(self) -> Offered:
        if len(set(self.options)) != len(self.options):
            raise ValueError("different options")
        return self


class Translation(Part):
    """All that people read, in another language."""

    title: Annotated[str, Field(min_length=2, max_length=200)]
    questions: dict[Name, Wording]
    consent: Annotated[str, Field(min_length=5, max_length=20_000)]
    screening: dict[Name, Offered] = {}
    instructions: Annotated[str, Field(min_length=2, max_length=20_000)]
    comprehension: tuple[Offered, ...] = ()
    debrief: Annotated[str, Field(min_length=2, max_length=20_000)]


class Survey(Part):
    design: Literal["within_image", "between_arm", "pairs", "guess", "best_worst"] = Field(
        default="within_image",
        description="`between_arm`: each person sees one arm; `pairs`: two variants of an image, which one; `guess`: two "
        "doses, which is the higher, with feedback; `best_worst`: several variants of an image",
    )
    compare: tuple[tuple[Arm, Arm], ...] = Field(
        default=(), description="`pairs`: arms set against each other; absent: every two arms of a set"
    )
    set_size: Annotated[int, Field(ge=3, le=8)] | None = Field(
        default=None, description="`best_worst`: pictures at once; absent: 4"
    )
    questions: Annotated[tuple[Question, ...], Field(min_length=1)]
    participants: Annotated[int, Field(ge=2, le=100_000)] = 60
    trials_per_participant: Annotated[int, Field(ge=2, le=1000)] = 52
    attention_trials: Annotated[int, Field(ge=0, le=10)] = 2
    repeats: Annotated[int, Field(ge=0, le=500)] = Field(
        default=0, description="trials shown a second time, half a list later: reliability, never evidence"
    )
    respondents: Respondents | None = Field(
        None, description="simulated people; absent: a panel of real people"
    )
    pay: Pay = Pay()
    service: Service | None = Field(default=None, description="pages of our own; absent: the batch goes out as files")
    panel: Panel | None = Field(default=None, description="where people come from; absent: nothing is published")
    language: Language = Field(default="en", description="of the study's own texts")
    languages: dict[Language, Translation] = Field(default={}, description="other languages, with all that people read")
    models: dict[Name, ModelRespondent] = Field(default={}, description="model respondents, by a name of yours")

    @model_validator(mode="after")
    def _mishaps(self) -> Survey:
        if self.respondents is not None and self.respondents.mishaps and self.service is None:
            raise ValueError("`respondents.mishaps` happen on pages alone: add `service`, or leave them out")
        return self

    @property
    def not_in_files(self) -> tuple[str, ...]:
        """What the pages do and no format of files carries: a sentence each."""
        service = self.service
        return tuple(
            sentence
            for wanted, sentence in (
                (self.pay.bonus, "What a bonus comes to: people are not shown it; it is counted from the answers that come back."),
                (self.languages, f"The other languages ({', '.join(self.languages)}): files are in {self.language} alone."),
                (service and service.screening, "Screening questions and their quotas: set them at the panel."),
                (service and service.practice, "The practice trials: build them there."),
                (service and service.breaks, "The breaks: build them there."),
            )
            if wanted
        )  # fmt: skip

    def spoken(self, language: str) -> Survey:
        """The survey in one of its languages: the same, in other words; who is admitted stays in the study's own."""
        words = self.languages.get(language)  # type: ignore[call-overload]
        if words is None or self.service is None:
            return self
        own = self.service
        checks = tuple(
            one.model_copy(update={"text": other.text, "options": other.options, "answer": other.options[one.options.index(one.answer)]})
            for one, other in zip(own.comprehension, words.comprehension, strict=True)
        )
        screening = tuple(one.model_copy(update=dict(words.screening[one.name])) for one in own.screening)
        texts = {"consent": words.consent, "instructions": words.instructions, "debrief": words.debrief}
        service = own.model_copy(update={**texts, "comprehension": checks, "screening": screening})
        questions = tuple(
            one.model_copy(update=words.questions[one.name].model_dump(exclude_none=True)) for one in self.questions
        )
        return self.model_copy(update={"questions": questions, "service": service})

    @property
    def guessed(self) -> str | None:
        """The question whose answer is right or wrong, None where there is none."""
        return next((q.name for q in self.questions if q.scale == "choice"), None) if self.design == "guess" else None

    @property
    def asked(self) -> tuple[Question, ...]:
        """Every answer that a trial asks for, in order."""
        return tuple(part for question in self.questions for part in question.parts())


class Hypothesis(Part):
    """One claim and its test, frozen by the registration."""

    id: Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9_-]{0,23}$")]
    claim: Annotated[str, Field(min_length=5, max_length=400)]
    direction: Name
    question: Name
    arm: Literal["treated", "sham", "placebo", "treated-sham", "treated-placebo"] = Field(
        default="treated-sham", description="an arm's dose slope, or the contrast of two"
    )
    test: Literal["difference", "equivalence"] = "difference"
    alternative: Literal["two-sided", "greater", "less"] = "two-sided"
    margin: Positive | None = Field(
        None, description="equivalence bound per SD of dose: rating points (linear) or log-odds (ordinal)"
    )
    alpha: Annotated[float, Field(gt=0, lt=0.5)] = 0.05
    family: Name = "main"
    primary: bool = False

    @model_validator(mode="after")
    def _margin(self) -> Hypothesis:
        if (self.test == "equivalence") != (self.margin is not None):
            raise ValueError("`margin` with an equivalence test, and none with a difference test")
        return self


class Correction(Part):
    """How the p of one family of hypotheses are corrected for how many they are."""

    method: Literal["holm", "bh", "k-fwer", "joint"] = Field(
        default="holm",
        description="`bh` bounds the share of false claims, `k-fwer` the chance of k or more; `joint` flips images' signs",
    )
    k: Annotated[int, Field(ge=1, le=1000)] = Field(default=1, description="of `k-fwer`")

    @model_validator(mode="after")
    def _k(self) -> Correction:
        if (self.method == "k-fwer") != (self.k > 1):
            raise ValueError("`k` of 2 or more with method k-fwer, and none with the others")
        return self

    @property
    def words(self) -> str:
        """As a methods section says it."""
        return {
            "holm": "Holm", "bh": "Benjamini and Hochberg", "k-fwer": f"Lehmann and Romano (k = {self.k})",
            "joint": "a joint sign-flip test over images (step-down of the largest t)",
        }[self.method]  # fmt: skip


class Analysis(Part):
    """What the analysis does otherwise than by default; frozen by the registration like everything else."""

    estimators: dict[Name, Estimator] = Field(
        default={},
        description="of a question; absent: linear for `vas` and `best_worst`, ordinal for `likert7`, logit for `choice`",
    )
    families: dict[Name, Correction] = Field(default={}, description="of a family of hypotheses; absent: Holm")
    heterogeneity: tuple[Name, ...] = Field(
        default=(), description="covariates of images with which the treated slope may differ; exploratory"
    )
    manipulation_check: Name | None = Field(
        default=None, description="the question that asks for what the direction changes; effects on others through it are exploratory"
    )

    def correction(self, family: str) -> Correction:
        return self.families.get(family, Correction())


class Stimuli(Part):
    """Finished stimuli brought from elsewhere: survey and statistics alone are used."""

    manifest: str = Field(
        description="CSV or Parquet with `stimulus`, `image`, `direction`, `arm`, `dose`, `file`"
    )
    folder: str | None = None


class Study(Part):
    """One question."""

    study: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,47}$", description="slug of the study")]
    title: Annotated[str, Field(min_length=3, max_length=200)]
    question: Annotated[str, Field(max_length=500)] = ""
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 1
    world: World | None = None
    images: Images | None = None
    stimuli: Stimuli | None = None
    model: Model = Model()
    predictors: Predictors = Predictors()
    directions: dict[Name, Direction] = {}
    doses: Doses = Doses()
    arms: Arms = Arms()
    card: Card = Card()
    gate: Gate = Gate()
    review: Review = Review()
    survey: Survey | None = None
    hypotheses: tuple[Hypothesis, ...] = ()
    analysis: Analysis = Analysis()

    def estimator(self, question: str) -> Estimator:
        """How the claims on a question are tested: as the study says, or as its scale calls for."""
        scales = {one.name: one.scale for one in self.survey.questions} if self.survey else {}
        return self.analysis.estimators.get(question) or ESTIMATORS[scales.get(question, "vas")][0]

    # Rules that join several keys stand in study/rules.py, where each can be told with its own line.

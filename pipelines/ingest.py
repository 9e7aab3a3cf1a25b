"""ingest: photographs, a rendered world, or finished stimuli become pixels, rows and splits by unit."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

from contrafact.errors import UserError
from contrafact.images import crop, decode, manifest, pack, splits, worlds
from contrafact.run.context import Context
from contrafact.store.records import ImageRecord, StimulusRecord
from contrafact.study import schema

SHEET_IMAGES = 240  # of a contact sheet; what was missed or looks odd comes first
MOST_CUT = 1 / 3  # share of a picture that a central square may leave out unremarked


@dataclass(frozen=True)
class Ingested:
    """``rows`` has key, unit_id, outcome, width, height, source_sha256; all tables share its index with ``pixels``.

    Photographs have ``path`` and ``box`` too, from which the same crop is cut at another size.
    """

    pixels: np.ndarray
    rows: pd.DataFrame
    covariates: pd.DataFrame
    factors: pd.DataFrame
    given_split: dict[str, str] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)


def run(context: Context) -> dict[str, Any]:
    """Facts: counts, the packed array and table (see ``images.pack``), what was missed and what looks odd."""
    study = context.study
    if study.stimuli is not None:
        return _finished(context)
    images = study.images or schema.Images()
    found = _rendered(study, images) if study.world is not None else _photographs(context, images)
    rows = found.rows
    role = splits.assign(list(rows["unit_id"]), images.splits, study.seed, found.given_split)
    rows = rows.assign(split=rows["unit_id"].map(role))
    splits.require_enough(
        rows["split"], rows["unit_id"], rows["outcome"], binary=images.outcome.kind == "binary"
    )

    # A rendered world can be rendered again: only what people will see needs a file of its own.
    seen = (rows["split"] == "stimuli") | (study.world is None)
    known = found.covariates.to_dict("index")
    records = []
    for k, row in enumerate(context.progress(rows.itertuples(index=False), len(rows), "images")):
        png = decode.png_bytes(found.pixels[k])
        sha256 = context.files.put(png) if seen.iloc[k] else hashlib.sha256(png).hexdigest()
        records.append(
            ImageRecord(
                key=row.key,
                unit_id=row.unit_id,
                split=row.split,
                pixels_sha256=sha256,
                width=row.width,
                height=row.height,
                outcome=row.outcome,
                source_sha256=row.source_sha256,
                delivered_sha256=_delivered(context, images, row) if row.split == "stimuli" else None,
                covariates={str(name): float(value) for name, value in known[k].items()},
            )
        )
    context.store.put_images(context.study_id, context.stage_run_id, records)

    table = pack.table_bytes(rows[["key", "unit_id", "split", "outcome"]], found.covariates, found.factors)
    by_split = {name: int((rows["split"] == name).sum()) for name in schema.SPLITS}
    facts: dict[str, Any] = {
        "images": len(rows),
        "units": int(rows["unit_id"].nunique()),
        "by_split": by_split,
        "array": context.files.put(pack.array_bytes(found.pixels)),
        "table": context.files.put(table),
        "missed": [],
        "odd": [],
        "contact_sheet": None,
        "extra_array": None,
        "words": {},
        "masks": _masks(context, images, rows[rows["split"] == "stimuli"]),
    } | found.facts
    context.log_metrics({"images": facts["images"], "units": facts["units"], "missed": len(facts["missed"])})
    context.log_metrics({f"images/{name}": count for name, count in by_split.items()})
    return facts


def _masks(context: Context, images: schema.Images, rows: pd.DataFrame) -> dict[str, str]:
    """Key of a picture to the hash of its mask: black and white, of the crop at the size that people see."""
    masks = {}
    for row in rows.itertuples() if images.mask else ():
        mask = decode.decode(row.mask)
        if mask.size != (row.width, row.height):
            found = f"{mask.width} x {mask.height} pixels, its picture {row.key} {row.width} x {row.height}"
            raise UserError(f"The mask {row.mask} has {found}.", hint="Save it at the size of the picture.")
        cut = decode.to_square(mask.convert("L").convert("RGB"), images.delivery or images.size, row.box)
        if not (cut >= 128).any():
            raise UserError(
                f"The mask {row.mask} is black in the whole crop of its picture.", hint="White is what may change."
            )
        masks[row.key] = context.files.put(decode.png_bytes(np.where(cut >= 128, 255, 0).astype(np.uint8)))
    return masks


def _delivered(context: Context, images: schema.Images, row: Any) -> str | None:
    """The hash of the crop that people see, where it is larger than the model's."""
    if images.delivery is None:
        return None
    picture = decode.to_square(decode.decode(row.path), images.delivery, row.box)
    return context.files.put(decode.png_bytes(picture))


# --- a rendered world -----------------------------------------------------------------------------------------


def _rendered(study: schema.Study, images: schema.Images) -> Ingested:
    assert study.world is not None
    for name, covariate in images.covariates.items():
        if covariate.kind == "binary":
            raise UserError(f"`images.covariates.{name}` is a continuous factor of the world.", hint="Remove `kind`.")
    drawn = worlds.sample(study.world, study.seed, images.outcome.kind)
    factors = pd.DataFrame(drawn.factors, columns=list(drawn.names))
    keys = [f"{study.world.name}_{k:06d}" for k in range(len(factors))]
    rows = pd.DataFrame({"key": keys, "unit_id": keys, "outcome": drawn.outcome})
    rows = rows.assign(width=images.size, height=images.size, source_sha256=None)
    return Ingested(worlds.render(drawn.factors, images.size, study.world.name), rows, factors[list(images.covariates)], factors)


# --- photographs ----------------------------------------------------------------------------------------------


def _photographs(context: Context, images: schema.Images) -> Ingested:
    inputs = context.loaded.inputs
    listed = manifest.read(inputs["images.manifest"], inputs["images.folder"], images)
    cut = _cut(context, listed, images, "photographs")
    kept = np.array([k not in cut.missed for k in range(len(listed.rows))])
    rows = listed.rows.assign(width=cut.sizes[:, 0], height=cut.sizes[:, 1], source_sha256=cut.sources)
    rows["box"] = pd.Series(cut.boxes, index=rows.index, dtype=object)
    facts: dict[str, Any] = {
        "missed": cut.told(cut.missed),
        "odd": cut.told(cut.odd),
        "words": listed.words,
        "contact_sheet": _contact_sheet(context, cut) if images.crop != "none" else None,
    }
    if not kept.any():
        raise UserError("No image is left: each one was missed.", hint=f"The first: {facts['missed'][0]['reason']}.")
    if "images.extra" in inputs:
        facts |= _extra(context, images, rows, listed.given_split)
    return Ingested(
        pixels=cut.pixels[kept],
        rows=rows[kept].reset_index(drop=True),
        covariates=listed.covariates[kept].reset_index(drop=True),
        factors=pd.DataFrame(index=range(int(kept.sum()))),
        given_split=listed.given_split,
        facts=facts,
    )


@dataclass(frozen=True)
class _Cut:
    """Squares of all pictures of a manifest; ``missed`` and ``odd`` map a row to the reason."""

    keys: list[str]
    pixels: np.ndarray
    sizes: np.ndarray
    sources: list[str]
    boxes: list[decode.Box | None]
    missed: dict[int, str]
    odd: dict[int, str]

    def told(self, reasons: dict[int, str]) -> list[dict[str, str]]:
        return [{"image": self.keys[k], "reason": reasons[k]} for k in sorted(reasons)]


def _cut(context: Context, listed: manifest.Manifest, images: schema.Images, label: str) -> _Cut:
    """Decode and cut every picture; all that cannot be read are told at once."""
    n, size = len(listed.rows), images.size
    pixels, sizes = np.zeros((n, size, size, 3), np.uint8), np.zeros((n, 2), int)
    sources, boxes, unread = [""] * n, dict[int, decode.Box](), list[UserError]()
    missed, odd, units = dict[int, str](), dict[int, str](), dict[str, int]()
    find = _box_finder(listed, images)
    for k, path in enumerate(context.progress(listed.rows["path"], n, label)):
        try:
            picture = decode.decode(path)
        except UserError as error:
            unread.append(error)
            continue
        sources[k], sizes[k] = _sha256(path), picture.size
        first = units.setdefault(sources[k], k)
        if listed.rows["unit_id"].iloc[first] != listed.rows["unit_id"].iloc[k]:
            # The same pixels in two units could stand on both sides of a split.
            missed[k] = f"the same file as {listed.rows['key'].iloc[first]}, of another unit"
        box = find(k, picture)
        if isinstance(box, str):
            missed.setdefault(k, box)
        elif box is not None:
            boxes[k] = box
            if box[2] < (wanted := max(size, images.delivery or 0)):
                odd[k] = f"the crop is {box[2]:.0f} px wide, less than the {wanted} px of the study"
        elif min(picture.size) / max(picture.size) < 1 - MOST_CUT:
            odd[k] = f"the central square leaves out much of its {picture.width} x {picture.height} px"
        pixels[k] = decode.to_square(picture, size, boxes.get(k))
    _refuse(unread)
    placed = [k for k in boxes if k not in missed]
    far = crop.odd_boxes([boxes[k] for k in placed], [tuple(sizes[k]) for k in placed])
    odd |= {placed[k]: reason for k, reason in far.items()}
    odd = {k: reason for k, reason in odd.items() if k not in missed}
    return _Cut(list(listed.rows["key"]), pixels, sizes, sources, [boxes.get(k) for k in range(n)], missed, odd)


def _box_finder(
    listed: manifest.Manifest, images: schema.Images
) -> Callable[[int, Image.Image], decode.Box | str | None]:
    """Row and picture to the square to cut, None for the central one, or the reason of a miss."""

    def face(k: int, picture: Image.Image) -> decode.Box | str:
        found = crop.find_face(picture)
        return crop.square(found, picture.size, images.crop_margin) if found else "no face that two detectors agree on"

    def given(boxes: np.ndarray, k: int, picture: Image.Image) -> decode.Box | str:
        left, top, width, height = map(float, boxes[k])
        if np.isnan(boxes[k]).any():
            return "no box in the manifest"
        if left + width > picture.width + 1 or top + height > picture.height + 1:
            return f"its box ends outside of its {picture.width} x {picture.height} px"
        return crop.square((left, top, width, height), picture.size)

    if images.crop == "face":
        return face
    if images.crop == "boxes":
        assert listed.boxes is not None
        return partial(given, listed.boxes)
    return lambda k, picture: None


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _contact_sheet(context: Context, cut: _Cut) -> str:
    first = [*sorted(cut.missed), *sorted(cut.odd)]
    rest = [k for k in range(len(cut.keys)) if k not in cut.missed and k not in cut.odd]
    shown = [*first, *rest][:SHEET_IMAGES]
    outlined = frozenset(place for place, k in enumerate(shown) if k in cut.missed)
    sheet = crop.contact_sheet([cut.pixels[k] for k in shown], [cut.keys[k] for k in shown], outlined)
    path = context.folder / "contact_sheet.png"
    sheet.save(path)
    context.log_artifact(path)
    return context.files.put(path.read_bytes())


def _extra(
    context: Context, images: schema.Images, rows: pd.DataFrame, given_split: dict[str, str]
) -> dict[str, Any]:
    """Unlabelled images for the generator, without any of a person whom it must not have seen."""
    path = context.loaded.inputs["images.extra"]
    folder = context.loaded.inputs["images.folder"]
    listed = manifest.read_extra(path, folder if context.study.images.folder else path.parent, images)  # type: ignore[union-attr]
    cut = _cut(context, listed, images, "extra images")
    role = splits.assign(list(rows["unit_id"]), images.splits, context.study.seed, given_split)
    held_back = {unit for unit, split in role.items() if split != "train"}
    files = set(rows.loc[rows["unit_id"].isin(held_back), "source_sha256"])
    for k, unit in enumerate(listed.rows["unit_id"]):
        if unit in held_back or cut.sources[k] in files:
            cut.missed.setdefault(k, "of a unit whose split the generator must not see")
    kept = [k for k in range(len(cut.keys)) if k not in cut.missed]
    return {
        "extra_images": len(kept),
        "extra_missed": cut.told(cut.missed),
        "extra_array": context.files.put(pack.array_bytes(cut.pixels[kept])) if kept else None,
    }


# --- finished stimuli -----------------------------------------------------------------------------------------


def _finished(context: Context) -> dict[str, Any]:
    """Stimuli from elsewhere, kept as they are (8-bit RGB): survey and statistics alone follow."""
    study, store, files = context.study, context.store, context.files
    assert study.stimuli is not None
    inputs = context.loaded.inputs
    listed = manifest.read_stimuli(inputs["stimuli.manifest"], inputs["stimuli.folder"])
    for hypothesis in study.hypotheses:
        of_direction = listed[listed["direction"] == hypothesis.direction]
        if missing := set(hypothesis.arm.split("-")) - set(of_direction["arm"]):
            raise UserError(
                f"Hypothesis {hypothesis.id} asks for the arm {min(missing)} of the direction {hypothesis.direction}, "
                f"of which {study.stimuli.manifest} has no stimulus.",
                hint="Add the stimuli, or mend the hypothesis.",
            )
    pixels, sizes, unread = list[str](), list[tuple[int, int]](), list[UserError]()
    for path in context.progress(listed["path"], len(listed), "stimuli"):
        try:
            picture = decode.decode(path)
        except UserError as error:
            unread.append(error)
            continue
        pixels.append(files.put(decode.png_bytes(np.asarray(picture))))
        sizes.append(picture.size)
    _refuse(unread)
    listed = listed.assign(pixels=pixels, size=sizes)

    # An image's own pixels are those nearest to it: as photographed, else at dose 0, else at the smallest dose.
    nearest = listed.assign(edited=listed["arm"] != "raw", away=listed["dose"].abs())
    nearest = nearest.sort_values(["edited", "away"], kind="stable").drop_duplicates("image").sort_index()
    store.put_images(
        context.study_id,
        context.stage_run_id,
        [ImageRecord(row.image, row.unit_id, "stimuli", row.pixels, *row.size) for row in nearest.itertuples()],
    )
    image_id = {image.key: image.id for image in store.images(context.study_id)}
    direction_id = {
        name: store.put_direction(context.study_id, name=name, kind="finished", target="", hold=[], spec={})
        for name in listed["direction"].unique()
    }
    store.put_stimuli(
        context.study_id,
        context.stage_run_id,
        [
            StimulusRecord(
                image_id=image_id[row.image],
                direction_id=direction_id[row.direction],
                arm=row.arm,
                draw=row.draw,
                dose=row.dose,
                set_key=f"{row.direction}/{row.image}",
                in_support=True,
                pixels_sha256=row.pixels,
            )
            for row in listed.itertuples()
        ],
    )
    return {"images": len(nearest), "units": int(nearest["unit_id"].nunique()), "stimuli": len(listed)}


def _refuse(unread: list[UserError]) -> None:
    """One error that names each file that cannot be read."""
    if len(unread) == 1:
        raise unread[0]
    if unread:
        raise UserError(f"{len(unread)} images cannot be read:\n" + "\n".join(map(str, unread)))

"""``contrafact new``."""

from __future__ import annotations

import re
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from contrafact.cli.output import Json, answer


class Template(StrEnum):
    """The files of studies/templates/."""

    faces_world = "faces_world"
    products_world = "products_world"
    photographs = "photographs"
    own_stimuli = "own_stimuli"


def register(app: typer.Typer) -> None:
    @app.command()
    def new(
        name: Annotated[
            str, typer.Argument(metavar="NAME", help="Slug of the study: lower case letters, digits, _.")
        ],
        template: Annotated[Template, typer.Option(help="What the pictures are.")] = Template.faces_world,
        folder: Annotated[Path, typer.Option(metavar="DIR", help="Where the file is written.")] = Path("."),
        as_json: Json = False,
    ) -> None:
        """Writes a commented study file that passes `contrafact check`."""
        from contrafact import bundle
        from contrafact.errors import UserError

        if not re.fullmatch(r"[a-z][a-z0-9_]{0,47}", name):
            raise UserError(
                f"'{name}' cannot name a study: lower case letters, digits and _ are allowed, a letter first.",
                hint=_proposal(name),
            )
        text = (bundle.folder("studies") / "templates" / f"{template}.yaml").read_text(encoding="utf-8")
        files = {folder / f"{name}.yaml": text.replace("NAME", name).encode()}
        files |= {folder / name / path: content for path, content in _examples(template).items()}
        for path in (*files, folder / name):
            if path.exists() and not (path == folder / name and len(files) == 1):
                raise UserError(f"{path} is there already.", hint="Take another name or another --folder.")
        try:
            for path, content in files.items():
                path.parent.mkdir(parents=True, exist_ok=True)
                with path.open("xb") as stream:
                    stream.write(content)
        except OSError as error:
            raise UserError(
                f"{path}: cannot be written ({error.strerror}).", hint="Name another --folder."
            ) from error
        study = folder / f"{name}.yaml"
        then = f"contrafact check {study}"
        answer(
            {"study": str(study), "files": [str(path) for path in files], "next": then},
            as_json=as_json,
            text="\n".join(f"Written: {path}" for path in files),
            then=then,
        )


def _proposal(name: str) -> str:
    slug = re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_0123456789")[:48]
    return f"Try: contrafact new {slug}" if slug else "Try: contrafact new my_study"


def _examples(template: Template) -> dict[str, bytes]:
    """The manifest of a template and its placeholders, by path in the study's own folder."""
    if template is Template.photographs:
        rows = ["image,person_id,smiling,age,gender"]
        rows += [
            f"person{k}_{smile}.png,person{k},{smile},{30 + k},{k % 2}" for k in (1, 2) for smile in (0, 1)
        ]
        manifest, pictures = "images.csv", [row.split(",")[0] for row in rows[1:]]
    elif template is Template.own_stimuli:
        rows = ["stimulus,image,direction,arm,dose,file"]
        for image in ("mug", "lamp"):
            for arm in ("treated", "sham"):
                for dose in (-1, 0, 1):
                    key = f"{image}_{arm}_{'minus' if dose < 0 else 'plus' if dose else 'null'}"
                    rows.append(f"{key},{image},warmer,{arm},{dose},{key}.png")
        manifest, pictures = "stimuli.csv", [row.split(",")[-1] for row in rows[1:]]
    else:
        return {}
    table = "".join(f"{row}\n" for row in rows).encode()
    return {manifest: table, **{name: _placeholder(k, len(pictures)) for k, name in enumerate(pictures)}}


def _placeholder(index: int, count: int) -> bytes:
    """A PNG of one grey, 64 px a side; no two are alike, because equal pictures count as one."""
    import io

    from PIL import Image

    buffer = io.BytesIO()
    Image.new("RGB", (64, 64), (64 + 128 * index // count,) * 3).save(buffer, "PNG")
    return buffer.getvalue()

"""The README's two pictures, from a finished run.

python docs/images/draw.py STUDY.yaml --workspace DIR [--rows 6]
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from PIL import Image

from contrafact import settings, study
from contrafact.images import decode
from contrafact.readings.figures import dose_response
from contrafact.stats.dose import by_dose
from contrafact.store import open_store
from contrafact.store.files import Files

HERE = Path(__file__).resolve().parent
SCALE = 4  # each pixel of the study's images becomes a square of so many


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("study", type=Path)
    parser.add_argument("--workspace", type=Path, required=True)
    parser.add_argument("--rows", type=int, default=6)
    parser.add_argument("--name", default="", help="prefix of the files that are written")
    asked = parser.parse_args()
    place = settings.read(asked.workspace)
    loaded = study.load(asked.study, data=place.data)
    files = Files(place.files_url)
    with open_store(place.database_url, create=False) as store:
        record = store.study(loaded.study.study)
        assert record is not None
        stimuli, ratings = store.stimuli_table(record.id), store.ratings_table(record.id)

    treated = stimuli[stimuli["arm"].isin(["treated", "null"])]
    rows = []
    for _, one in list(treated.groupby("image", sort=True))[: asked.rows]:
        pictures = [decode.from_png(files.get(sha256)) for sha256 in one.sort_values("dose")["pixels_sha256"]]
        rows.append(np.concatenate(pictures, axis=1))
    strip = np.kron(np.concatenate(rows), np.ones((SCALE, SCALE, 1), np.uint8))
    Image.fromarray(strip).save(HERE / f"{asked.name}strip.png", optimize=True)

    if len(ratings):
        question = loaded.study.survey.questions[0] if loaded.study.survey else None
        assert question is not None
        direction = next(iter(loaded.study.directions))
        figure = dose_response(by_dose(ratings[~ratings["excluded"].astype(bool)]), question.text, direction)
        (HERE / f"{asked.name}dose_response.svg").write_text(figure.svg, encoding="utf-8")


if __name__ == "__main__":
    main()

"""Every mask and style of the study file through the real program, in one run."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from contrafact import settings
from contrafact.images import decode
from contrafact.store.files import Files

pytestmark = pytest.mark.timeout(1200)

EDITS = {
    "box": "mask: [0, 0.5, 1, 0.5]",
    "seen": "mask: saliency, mask_quantile: 0.5",
    "tint": "style: colour, depth: 0.4",
    "drawn": "inversion: noised, depth: 0.3, mask: [0.25, 0.25, 0.5, 0.5]",
    "other": "mask: conditions, mask_quantile: 0.5",
}


def test_masks_bound_what_people_see(predicted: Any, changed: Callable[..., Path], tmp_path: Path) -> None:
    old = "  outcome:\n    kind: guidance\n    hold: [skin]\n    edit: {steps: 4, secant_steps: 1, mask_quantile: 0.5, batch: 7}\n"
    new = "".join(
        f"  {name}: {{kind: guidance, hold: [skin], edit: {{steps: 4, secant_steps: 0, {words}}}}}\n"
        for name, words in EDITS.items()
    )
    study = changed(
        (old, new),
        ("sham edits., direction: outcome", "sham edits., direction: box"),
        ("nothing., direction: outcome", "nothing., direction: box"),
        ("sham: true, placebo: 3, images: 9", "sham: true, placebo: 0, images: 3"),
        ("images_seen: 1536", "images_seen: 640"),
    )
    chain = predicted.copy(tmp_path / "masks")
    told = chain.run(study, "--until", "generate")
    assert told.said["stages"][1]["cached"], "a mask trains no predictor anew"

    files = Files(settings.read(chain.workspace).files_url)
    with chain.store() as store:
        table = store.stimuli_table(store.study("tiny").id)
        source = {one.key: one.pixels_sha256 for one in store.images(store.study("tiny").id, split="stimuli")}
    table["change"] = [
        np.abs(decode.from_png(files.get(row.pixels_sha256)).astype(int) - decode.from_png(files.get(source[row.image])))
        for row in table.itertuples()
    ]
    edited = {
        name: np.stack(rows.loc[rows["arm"] != "null", "change"]).max(0) for name, rows in table.groupby("direction")
    }
    null = {name: np.stack(rows.loc[rows["arm"] == "null", "change"]).max() for name, rows in table.groupby("direction")}
    assert all(found.any() for found in edited.values()), "every direction changes something"
    assert not edited["box"][:8].any() and edited["box"][8:].any()
    outside = np.ones((16, 16), bool)
    outside[4:12, 4:12] = False
    assert not edited["drawn"][outside].any()
    assert null.pop("drawn") > 0, "drawn anew, dose 0 is another picture, and the card says so"
    assert set(null.values()) == {0}

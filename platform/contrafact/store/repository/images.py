"""Images, the lockbox among them that is opened once, and the models trained on them."""

from __future__ import annotations

from collections.abc import Iterable

from sqlalchemy import bindparam, delete, insert, select

from contrafact.errors import UserError
from contrafact.store import models as m
from contrafact.store.records import ImageRecord, LockboxRecord, ModelRecord
from contrafact.store.repository.chain import append_link
from contrafact.store.repository.rows import as_record, as_records, as_row, put_rows
from contrafact.store.repository.sessions import Sessions


class Images(Sessions):
    def put_images(self, study_id: int, stage_run_id: int, images: Iterable[ImageRecord]) -> None:
        """Writes images with their covariates by key; a known key is brought up to date."""
        with self._write() as session:
            known = dict(
                session.execute(select(m.Image.key, m.Image.id).where(m.Image.study_id == study_id)).all()
            )
            covariates = {}
            rows = []
            for image in images:
                row = as_row(image, study_id=study_id, stage_run_id=stage_run_id)
                covariates[image.key] = row.pop("covariates")
                rows.append(row)
            put_rows(session, m.Image, rows, lambda row: known.get(row["key"]))
            if old := [known[key] for key in covariates if key in known]:
                session.connection().execute(
                    delete(m.CovariateValue).where(m.CovariateValue.image_id == bindparam("image")),
                    [{"image": image_id} for image_id in old],
                )
            ids = dict(
                session.execute(select(m.Image.key, m.Image.id).where(m.Image.study_id == study_id)).all()
            )
            values = [
                {"image_id": ids[key], "name": name, "value": value}
                for key, own in covariates.items()
                for name, value in own.items()
            ]
            if values:
                session.execute(insert(m.CovariateValue), values)

    def images(self, study_id: int, split: str | None = None) -> list[ImageRecord]:
        """The images of a study or of one split, in the order they were written.

        Those of the lockbox are left out, and asking for them raises UserError, until it was opened.
        """
        with self._read() as session:
            wanted = [m.Image.study_id == study_id, m.Image.stage_run_id.is_not(None)]
            if split is not None:
                wanted.append(m.Image.split == split)
            opened = session.scalar(select(m.LockboxOpening).where(m.LockboxOpening.study_id == study_id))
            if opened is None:
                if split == "lockbox":
                    raise UserError(
                        "The lockbox of this study is closed.", hint="It is opened once, with a reason that is logged."
                    )
                wanted.append(m.Image.split != "lockbox")
            covariates: dict[int, dict[str, float | None]] = {}
            for image_id, name, value in session.execute(
                select(m.CovariateValue.image_id, m.CovariateValue.name, m.CovariateValue.value)
                .join(m.Image, m.Image.id == m.CovariateValue.image_id)
                .where(*wanted)
                .order_by(m.CovariateValue.id)
            ):
                covariates.setdefault(image_id, {})[name] = value
            rows = session.scalars(select(m.Image).where(*wanted).order_by(m.Image.id))
            return [as_record(ImageRecord, row, covariates=covariates.get(row.id, {})) for row in rows]

    def open_lockbox(self, study_id: int, reason: str) -> LockboxRecord:
        """Opens the lockbox, once, and writes time and reason into the chain. Raises UserError the second time."""
        with self._write() as session:
            opened = session.scalar(select(m.LockboxOpening).where(m.LockboxOpening.study_id == study_id))
            if opened is not None:
                raise UserError(
                    f"The lockbox of this study was opened on {opened.at:%Y-%m-%d %H:%M} UTC ({opened.reason}).",
                    hint="It is opened once.",
                )
            row = m.LockboxOpening(study_id=study_id, reason=reason, at=m.now())
            session.add(row)
            append_link(session, study_id, "opening", {"reason": reason})
            session.flush()
            return as_record(LockboxRecord, row)

    def put_models(self, study_id: int, stage_run_id: int, models: Iterable[ModelRecord]) -> None:
        """Writes models by role and name; a known one is brought up to date."""
        with self._write() as session:
            known = {
                (role, name): model_id
                for model_id, role, name in session.execute(
                    select(m.Model.id, m.Model.role, m.Model.name).where(m.Model.study_id == study_id)
                )
            }
            rows = [as_row(model, study_id=study_id, stage_run_id=stage_run_id) for model in models]
            put_rows(session, m.Model, rows, lambda row: known.get((row["role"], row["name"])))

    def models(self, study_id: int) -> list[ModelRecord]:
        """All models of a study, by role and name."""
        with self._read() as session:
            query = select(m.Model).where(m.Model.study_id == study_id).order_by(m.Model.role, m.Model.name)
            return as_records(ModelRecord, session.scalars(query))

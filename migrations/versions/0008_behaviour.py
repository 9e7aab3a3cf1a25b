"""What people did beside answering: how often they left a trial's page, how much they pasted; in the view of ratings.

Revision: 0008
"""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

ADDED = ", rating.away AS away, rating.pasted AS pasted"
VIEW = """
CREATE VIEW rating_provenance AS
SELECT rating.id AS rating_id, study.id AS study_id, study.slug AS study,
       participant.id AS participant, participant.simulated AS simulated,
       EXISTS (SELECT 1 FROM exclusion
                WHERE exclusion.batch_id = batch.id AND exclusion.participant_id = participant.id) AS excluded,
       question.name AS question, rating.value AS value, rating.response_ms AS response_ms,
       stimulus.id AS stimulus, image.key AS image, image.unit_id AS unit_id,
       direction.name AS direction, stimulus.arm AS arm, stimulus.draw AS draw, stimulus.dose AS dose,
       stimulus.seed AS seed, stimulus.set_key AS set_key, stimulus.pixels_sha256 AS pixels_sha256,
       stimulus.denoiser_sha256 AS denoiser_sha256, stimulus.guide_sha256 AS guide_sha256,
       stage_run.id AS stage_run_id, stage_run.mlflow_run_id AS stage_mlflow_run_id,
       run.id AS run_id, run.mlflow_run_id AS mlflow_run_id,
       batch.name AS batch, assignment.list_number AS list_number, trial.position AS position,
       trial_stimulus.position AS place, rating.text AS text, question.scale AS scale, trial.id AS trial,
       trial.kind AS kind, trial.target AS target,
       CASE WHEN question.scale IN ('choice', 'best', 'worst') THEN rating.value = trial_stimulus.position + 1 END AS chosen{added}
  FROM rating
  JOIN question ON question.id = rating.question_id
  JOIN trial ON trial.id = rating.trial_id
  JOIN trial_stimulus ON trial_stimulus.trial_id = trial.id
  JOIN assignment ON assignment.id = trial.assignment_id
  JOIN participant ON participant.id = assignment.participant_id
  JOIN batch ON batch.id = assignment.batch_id
  JOIN stimulus ON stimulus.id = trial_stimulus.stimulus_id
  JOIN study ON study.id = stimulus.study_id
  JOIN image ON image.id = stimulus.image_id
  JOIN direction ON direction.id = stimulus.direction_id
  LEFT JOIN stage_run ON stage_run.id = stimulus.stage_run_id
  LEFT JOIN run ON run.id = stage_run.run_id
"""


def upgrade() -> None:
    op.execute("DROP VIEW rating_provenance")
    op.add_column("rating", sa.Column("away", sa.Integer(), nullable=True))
    op.add_column("rating", sa.Column("pasted", sa.Integer(), nullable=True))
    op.execute(VIEW.format(added=ADDED))


def downgrade() -> None:
    op.execute("DROP VIEW rating_provenance")
    op.drop_column("rating", "pasted")
    op.drop_column("rating", "away")
    op.execute(VIEW.format(added=""))

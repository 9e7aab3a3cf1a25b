"""The store: tables, triggers that keep what is append-only, and the view that joins a rating to its making.

Columns are frozen here: no model is imported.

Revision: 0001
"""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

TABLES = (
    "study",
    "audit",
    "direction",
    "lockbox_opening",
    "participant",
    "question",
    "registration",
    "run",
    "study_salt",
    "batch",
    "stage_run",
    "assignment",
    "exclusion",
    "gate_decision",
    "image",
    "model",
    "statement",
    "covariate_value",
    "stimulus",
    "trial",
    "card",
    "rating",
    "review",
    "trial_stimulus",
)
INDEXES = {
    "audit": ("study_id",),
    "run": ("study_id",),
    "batch": ("registration_id",),
    "stage_run": ("run_id", "study_id"),
    "assignment": ("participant_id",),
    "exclusion": ("participant_id",),
    "gate_decision": ("stage_run_id",),
    "image": ("stage_run_id",),
    "model": ("stage_run_id",),
    "statement": ("stage_run_id", "study_id"),
    "stimulus": ("direction_id", "image_id", "set_key", "stage_run_id"),
    "card": ("stage_run_id",),
    "rating": ("question_id",),
    "review": ("stimulus_id",),
    "trial_stimulus": ("stimulus_id",),
}
APPEND_ONLY = ("review", "registration", "lockbox_opening", "audit")

RATING_PROVENANCE = """
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
       trial_stimulus.position AS place
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
    op.create_table(
        "study",
        sa.Column("slug", sa.String(length=48), nullable=False),
        sa.Column("title", sa.Text(), nullable=False),
        sa.Column("yaml", sa.Text(), nullable=False),
        sa.Column("sha256", sa.String(length=64), nullable=False),
        sa.Column("id", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_study"),
        sa.UniqueConstraint("slug", name="uq_study_slug"),
    )
    op.create_table(
        "audit",
        sa.Column("study_id", sa.Integer(), nullable=False),
        sa.Column("actor", sa.Text(), nullable=False),
        sa.Column("action", sa.Text(), nullable=False),
        sa.Column("detail", sa.JSON(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("id", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(["study_id"], ["study.id"], name="fk_audit_study_id_study"),
        sa.PrimaryKeyConstraint("id", name="pk_audit"),
    )
    op.create_table(
        "direction",
        sa.Column("study_id", sa.Integer(), nullable=False),
        sa.Column("name", sa.String(length=48), nullable=False),
        sa.Column("kind", sa.String(length=16), nullable=False),
        sa.Column("target", sa.String(length=48), nullable=False),
        sa.Column("hold", sa.JSON(), nullable=False),
        sa.Column("spec", sa.JSON(), nullable=False),
        sa.Column("id", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(["study_id"], ["study.id"], name="fk_direction_study_id_study"),
        sa.PrimaryKeyConstraint("id", name="pk_direction"),
        sa.UniqueConstraint("study_id", "name", name="uq_direction_study_id_name"),
    )
    op.create_table(
        "lockbox_opening",
        sa.Column("study_id", sa.Integer(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("id", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(["study_id"], ["study.id"], name="fk_lockbox_opening_study_id_study"),
        sa.PrimaryKeyConstraint("id", name="pk_lockbox_opening"),
        sa.UniqueConstraint("study_id", name="uq_lockbox_opening_study_id"),
    )
    op.create_table(
        "participant",
        sa.Column("study_id", sa.Integer(), nullable=False),
        sa.Column("pid_hash", sa.String(length=64), nullable=False),
        sa.Column("simulated", sa.Boolean(), nullable=False),
        sa.Column("id", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(["study_id"], ["study.id"], name="fk_participant_study_id_study"),
        sa.PrimaryKeyConstraint("id", name="pk_participant"),
        sa.UniqueConstraint("study_id", "pid_hash", name="uq_participant_study_id_pid_hash"),
    )
    op.create_table(
        "question",
        sa.Column("study_id", sa.Integer(), nullable=False),
        sa.Column("name", sa.String(length=48), nullable=False),
        sa.Column("text", sa.Text(), nullable=False),
        sa.Column("scale", sa.String(length=16), nullable=False),
        sa.Column("low", sa.Text(), nullable=False),
        sa.Column("high", sa.Text(), nullable=False),
        sa.Column("id", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(["study_id"], ["study.id"], name="fk_question_study_id_study"),
        sa.PrimaryKeyConstraint("id", name="pk_question"),
        sa.UniqueConstraint("study_id", "name", name="uq_question_study_id_name"),
    )
    op.create_table(
        "registration",
        sa.Column("study_id", sa.Integer(), nullable=False),
        sa.Column("sequence", sa.Integer(), nullable=False),
        sa.Column("kind", sa.String(length=16), nullable=False),
        sa.Column("payload", sa.JSON(), nullable=False),
        sa.Column("previous_hash", sa.String(length=64), nullable=False),
        sa.Column("hash", sa.String(length=64), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("id", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(["study_id"], ["study.id"], name="fk_registration_study_id_study"),
        sa.PrimaryKeyConstraint("id", name="pk_registration"),
        sa.UniqueConstraint("study_id", "sequence", name="uq_registration_study_id_sequence"),
    )
    op.create_table(
        "run",
        sa.Column("study_id", sa.Integer(), nullable=False),
        sa.Column("mlflow_run_id", sa.Text(), nullable=True),
        sa.Column("status", sa.String(length=16), nullable=False),
        sa.Column("started", sa.DateTime(timezone=True), nullable=False),
        sa.Column("finished", sa.DateTime(timezone=True), nullable=True),
        sa.Column("id", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(["study_id"], ["study.id"], name="fk_run_study_id_study"),
        sa.PrimaryKeyConstraint("id", name="pk_run"),
    )
    op.create_table(
        "study_salt",
        sa.Column("study_id", sa.Integer(), nullable=False),
        sa.Column("salt", sa.String(length=64), nullable=False),
        sa.Column("id", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(["study_id"], ["study.id"], name="fk_study_salt_study_id_study"),
        sa.PrimaryKeyConstraint("id", name="pk_study_salt"),
        sa.UniqueConstraint("study_id", name="uq_study_salt_study_id"),
    )
    op.create_table(
        "batch",
        sa.Column("study_id", sa.Integer(), nullable=False),
        sa.Column("registration_id", sa.Integer(), nullable=True),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("simulated", sa.Boolean(), nullable=False),
        sa.Column("id", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(
            ["registration_id"], ["registration.id"], name="fk_batch_registration_id_registration"
        ),
        sa.ForeignKeyConstraint(["study_id"], ["study.id"], name="fk_batch_study_id_study"),
        sa.PrimaryKeyConstraint("id", name="pk_batch"),
        sa.UniqueConstraint("study_id", "name", name="uq_batch_study_id_name"),
    )
    op.create_table(
        "stage_run",
        sa.Column("run_id", sa.Integer(), nullable=False),
        sa.Column("study_id", sa.Integer(), nullable=False),
        sa.Column("stage", sa.String(length=32), nullable=False),
        sa.Column("hash", sa.String(length=64), nullable=False),
        sa.Column("status", sa.String(length=16), nullable=False),
        sa.Column("facts", sa.JSON(), nullable=False),
        sa.Column("mlflow_run_id", sa.Text(), nullable=True),
        sa.Column("code_version", sa.Text(), nullable=False),
        sa.Column("started", sa.DateTime(timezone=True), nullable=False),
        sa.Column("finished", sa.DateTime(timezone=True), nullable=True),
        sa.Column("id", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(["run_id"], ["run.id"], name="fk_stage_run_run_id_run"),
        sa.ForeignKeyConstraint(["study_id"], ["study.id"], name="fk_stage_run_study_id_study"),
        sa.PrimaryKeyConstraint("id", name="pk_stage_run"),
    )
    op.create_table(
        "assignment",
        sa.Column("batch_id", sa.Integer(), nullable=False),
        sa.Column("participant_id", sa.Integer(), nullable=True),
        sa.Column("list_number", sa.Integer(), nullable=False),
        sa.Column("code", sa.Text(), nullable=False),
        sa.Column("status", sa.String(length=8), nullable=False),
        sa.Column("started", sa.DateTime(timezone=True), nullable=True),
        sa.Column("finished", sa.DateTime(timezone=True), nullable=True),
        sa.Column("id", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(
            ["batch_id"], ["batch.id"], name="fk_assignment_batch_id_batch", ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(
            ["participant_id"], ["participant.id"], name="fk_assignment_participant_id_participant"
        ),
        sa.PrimaryKeyConstraint("id", name="pk_assignment"),
        sa.UniqueConstraint("batch_id", "code", name="uq_assignment_batch_id_code"),
        sa.UniqueConstraint("batch_id", "list_number", name="uq_assignment_batch_id_list_number"),
    )
    op.create_table(
        "exclusion",
        sa.Column("batch_id", sa.Integer(), nullable=False),
        sa.Column("participant_id", sa.Integer(), nullable=False),
        sa.Column("rule", sa.String(length=48), nullable=False),
        sa.Column("detail", sa.Text(), nullable=False),
        sa.Column("id", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(
            ["batch_id"], ["batch.id"], name="fk_exclusion_batch_id_batch", ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(
            ["participant_id"], ["participant.id"], name="fk_exclusion_participant_id_participant"
        ),
        sa.PrimaryKeyConstraint("id", name="pk_exclusion"),
        sa.UniqueConstraint(
            "batch_id", "participant_id", "rule", name="uq_exclusion_batch_id_participant_id_rule"
        ),
    )
    op.create_table(
        "gate_decision",
        sa.Column("study_id", sa.Integer(), nullable=False),
        sa.Column("stage_run_id", sa.Integer(), nullable=False),
        sa.Column("set_key", sa.Text(), nullable=False),
        sa.Column("passed", sa.Boolean(), nullable=False),
        sa.Column("reasons", sa.JSON(), nullable=False),
        sa.Column("id", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(
            ["stage_run_id"], ["stage_run.id"], name="fk_gate_decision_stage_run_id_stage_run"
        ),
        sa.ForeignKeyConstraint(["study_id"], ["study.id"], name="fk_gate_decision_study_id_study"),
        sa.PrimaryKeyConstraint("id", name="pk_gate_decision"),
        sa.UniqueConstraint("study_id", "set_key", name="uq_gate_decision_study_id_set_key"),
    )
    op.create_table(
        "image",
        sa.Column("study_id", sa.Integer(), nullable=False),
        sa.Column("stage_run_id", sa.Integer(), nullable=True),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("unit_id", sa.Text(), nullable=False),
        sa.Column("outcome", sa.Float(precision=53), nullable=True),
        sa.Column("split", sa.String(length=16), nullable=False),
        sa.Column("pixels_sha256", sa.String(length=64), nullable=False),
        sa.Column("source_sha256", sa.String(length=64), nullable=True),
        sa.Column("width", sa.Integer(), nullable=False),
        sa.Column("height", sa.Integer(), nullable=False),
        sa.Column("id", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(["stage_run_id"], ["stage_run.id"], name="fk_image_stage_run_id_stage_run"),
        sa.ForeignKeyConstraint(["study_id"], ["study.id"], name="fk_image_study_id_study"),
        sa.PrimaryKeyConstraint("id", name="pk_image"),
        sa.UniqueConstraint("study_id", "key", name="uq_image_study_id_key"),
    )
    op.create_table(
        "model",
        sa.Column("study_id", sa.Integer(), nullable=False),
        sa.Column("stage_run_id", sa.Integer(), nullable=False),
        sa.Column("role", sa.String(length=16), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("files_sha256", sa.String(length=64), nullable=False),
        sa.Column("quality", sa.JSON(), nullable=False),
        sa.Column("id", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(["stage_run_id"], ["stage_run.id"], name="fk_model_stage_run_id_stage_run"),
        sa.ForeignKeyConstraint(["study_id"], ["study.id"], name="fk_model_study_id_study"),
        sa.PrimaryKeyConstraint("id", name="pk_model"),
        sa.UniqueConstraint("study_id", "role", "name", name="uq_model_study_id_role_name"),
    )
    op.create_table(
        "statement",
        sa.Column("study_id", sa.Integer(), nullable=False),
        sa.Column("stage_run_id", sa.Integer(), nullable=False),
        sa.Column("hypothesis", sa.Text(), nullable=False),
        sa.Column("label", sa.String(length=16), nullable=False),
        sa.Column("direction", sa.String(length=48), nullable=False),
        sa.Column("question", sa.String(length=48), nullable=False),
        sa.Column("arm", sa.String(length=32), nullable=False),
        sa.Column("component", sa.String(length=8), nullable=False),
        sa.Column("estimate", sa.Float(precision=53), nullable=True),
        sa.Column("low", sa.Float(precision=53), nullable=True),
        sa.Column("high", sa.Float(precision=53), nullable=True),
        sa.Column("level", sa.Float(precision=53), nullable=True),
        sa.Column("se", sa.Float(precision=53), nullable=True),
        sa.Column("df", sa.Float(precision=53), nullable=True),
        sa.Column("p", sa.Float(precision=53), nullable=True),
        sa.Column("p_adjusted", sa.Float(precision=53), nullable=True),
        sa.Column("margin", sa.Float(precision=53), nullable=True),
        sa.Column("equivalent", sa.Boolean(), nullable=True),
        sa.Column("verdict", sa.Boolean(), nullable=True),
        sa.Column("n_ratings", sa.Integer(), nullable=False),
        sa.Column("n_participants", sa.Integer(), nullable=False),
        sa.Column("n_images", sa.Integer(), nullable=False),
        sa.Column("unit", sa.Text(), nullable=False),
        sa.Column("method", sa.Text(), nullable=False),
        sa.Column("seed", sa.BigInteger(), nullable=False),
        sa.Column("caveats", sa.JSON(), nullable=False),
        sa.Column("id", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(
            ["stage_run_id"], ["stage_run.id"], name="fk_statement_stage_run_id_stage_run"
        ),
        sa.ForeignKeyConstraint(["study_id"], ["study.id"], name="fk_statement_study_id_study"),
        sa.PrimaryKeyConstraint("id", name="pk_statement"),
    )
    op.create_table(
        "covariate_value",
        sa.Column("image_id", sa.Integer(), nullable=False),
        sa.Column("name", sa.String(length=48), nullable=False),
        sa.Column("value", sa.Float(precision=53), nullable=True),
        sa.Column("id", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(
            ["image_id"], ["image.id"], name="fk_covariate_value_image_id_image", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name="pk_covariate_value"),
        sa.UniqueConstraint("image_id", "name", name="uq_covariate_value_image_id_name"),
    )
    op.create_table(
        "stimulus",
        sa.Column("study_id", sa.Integer(), nullable=False),
        sa.Column("stage_run_id", sa.Integer(), nullable=True),
        sa.Column("image_id", sa.Integer(), nullable=False),
        sa.Column("direction_id", sa.Integer(), nullable=False),
        sa.Column("arm", sa.String(length=16), nullable=False),
        sa.Column("draw", sa.BigInteger(), nullable=False),
        sa.Column("dose", sa.Float(precision=53), nullable=False),
        sa.Column("strength", sa.Float(precision=53), nullable=True),
        sa.Column("seed", sa.BigInteger(), nullable=True),
        sa.Column("set_key", sa.Text(), nullable=False),
        sa.Column("in_support", sa.Boolean(), nullable=False),
        sa.Column("pixels_sha256", sa.String(length=64), nullable=False),
        sa.Column("denoiser_sha256", sa.String(length=64), nullable=True),
        sa.Column("guide_sha256", sa.String(length=64), nullable=True),
        sa.Column("id", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(
            ["direction_id"], ["direction.id"], name="fk_stimulus_direction_id_direction", ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(
            ["image_id"], ["image.id"], name="fk_stimulus_image_id_image", ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(
            ["stage_run_id"], ["stage_run.id"], name="fk_stimulus_stage_run_id_stage_run"
        ),
        sa.ForeignKeyConstraint(["study_id"], ["study.id"], name="fk_stimulus_study_id_study"),
        sa.PrimaryKeyConstraint("id", name="pk_stimulus"),
        sa.UniqueConstraint(
            "study_id",
            "image_id",
            "direction_id",
            "arm",
            "draw",
            "dose",
            name="uq_stimulus_study_id_image_id_direction_id_arm_draw_dose",
        ),
    )
    op.create_table(
        "trial",
        sa.Column("assignment_id", sa.Integer(), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("kind", sa.String(length=16), nullable=False),
        sa.Column("target", sa.Float(precision=53), nullable=True),
        sa.Column("id", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(
            ["assignment_id"], ["assignment.id"], name="fk_trial_assignment_id_assignment", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name="pk_trial"),
        sa.UniqueConstraint("assignment_id", "position", name="uq_trial_assignment_id_position"),
    )
    op.create_table(
        "card",
        sa.Column("stimulus_id", sa.Integer(), nullable=False),
        sa.Column("stage_run_id", sa.Integer(), nullable=False),
        sa.Column("judge_sha256", sa.String(length=64), nullable=False),
        sa.Column("judge_dose", sa.Float(precision=53), nullable=True),
        sa.Column("leakage", sa.JSON(), nullable=False),
        sa.Column("l1", sa.Float(precision=53), nullable=True),
        sa.Column("ssim", sa.Float(precision=53), nullable=True),
        sa.Column("realism", sa.Float(precision=53), nullable=True),
        sa.Column("artefact", sa.Float(precision=53), nullable=True),
        sa.Column("flags", sa.JSON(), nullable=False),
        sa.Column("id", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(["stage_run_id"], ["stage_run.id"], name="fk_card_stage_run_id_stage_run"),
        sa.ForeignKeyConstraint(
            ["stimulus_id"], ["stimulus.id"], name="fk_card_stimulus_id_stimulus", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name="pk_card"),
        sa.UniqueConstraint("stimulus_id", "judge_sha256", name="uq_card_stimulus_id_judge_sha256"),
    )
    op.create_table(
        "rating",
        sa.Column("trial_id", sa.Integer(), nullable=False),
        sa.Column("question_id", sa.Integer(), nullable=False),
        sa.Column("value", sa.Float(precision=53), nullable=True),
        sa.Column("response_ms", sa.Float(precision=53), nullable=True),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("id", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(["question_id"], ["question.id"], name="fk_rating_question_id_question"),
        sa.ForeignKeyConstraint(
            ["trial_id"], ["trial.id"], name="fk_rating_trial_id_trial", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name="pk_rating"),
        sa.UniqueConstraint("trial_id", "question_id", name="uq_rating_trial_id_question_id"),
    )
    op.create_table(
        "review",
        sa.Column("stimulus_id", sa.Integer(), nullable=False),
        sa.Column("pixels_sha256", sa.String(length=64), nullable=False),
        sa.Column("verdict", sa.String(length=8), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("reviewer", sa.Text(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("id", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(["stimulus_id"], ["stimulus.id"], name="fk_review_stimulus_id_stimulus"),
        sa.PrimaryKeyConstraint("id", name="pk_review"),
    )
    op.create_table(
        "trial_stimulus",
        sa.Column("trial_id", sa.Integer(), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("stimulus_id", sa.Integer(), nullable=False),
        sa.Column("id", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(
            ["stimulus_id"], ["stimulus.id"], name="fk_trial_stimulus_stimulus_id_stimulus"
        ),
        sa.ForeignKeyConstraint(
            ["trial_id"], ["trial.id"], name="fk_trial_stimulus_trial_id_trial", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name="pk_trial_stimulus"),
        sa.UniqueConstraint("trial_id", "position", name="uq_trial_stimulus_trial_id_position"),
    )

    for table, columns in INDEXES.items():
        for column in columns:
            op.create_index(f"ix_{table}_{column}", table, [column])
    op.execute(RATING_PROVENANCE)
    keep_append_only()


def keep_append_only() -> None:
    """Triggers that refuse to change or delete what was said once."""
    if op.get_bind().dialect.name == "postgresql":
        op.execute(
            "CREATE FUNCTION append_only() RETURNS trigger LANGUAGE plpgsql AS "
            "$$ BEGIN RAISE EXCEPTION '% is append-only', TG_TABLE_NAME; END $$"
        )
        for table in APPEND_ONLY:
            op.execute(
                f"CREATE TRIGGER {table}_append_only BEFORE UPDATE OR DELETE ON {table} "
                "FOR EACH ROW EXECUTE FUNCTION append_only()"
            )
        return
    for table in APPEND_ONLY:
        for event in ("UPDATE", "DELETE"):
            op.execute(
                f"CREATE TRIGGER {table}_append_only_{event.lower()} BEFORE {event} ON {table} "
                f"BEGIN SELECT RAISE(ABORT, '{table} is append-only'); END"
            )


def downgrade() -> None:
    op.execute("DROP VIEW rating_provenance")
    for table in reversed(TABLES):
        op.drop_table(table)
    if op.get_bind().dialect.name == "postgresql":
        op.execute("DROP FUNCTION append_only()")

"""The participant service: visits with their leases, panels' ids apart, and what a rating says of its making.

Revision: 0004
"""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("rating", sa.Column("submission_key", sa.String(length=64), nullable=True))
    op.add_column("rating", sa.Column("answered_at", sa.DateTime(timezone=True), nullable=True))
    op.add_column("rating", sa.Column("moves", sa.Integer(), nullable=True))
    op.create_index("uq_rating_submission_key_question_id", "rating", ["submission_key", "question_id"], unique=True)
    op.create_table(
        "visit",
        sa.Column("batch_id", sa.Integer(), nullable=False),
        sa.Column("participant_id", sa.Integer(), nullable=False),
        sa.Column("assignment_id", sa.Integer(), nullable=True),
        sa.Column("status", sa.String(length=16), nullable=False),
        sa.Column("tries", sa.Integer(), nullable=False),
        sa.Column("consented", sa.DateTime(timezone=True), nullable=False),
        sa.Column("lease_until", sa.DateTime(timezone=True), nullable=False),
        sa.Column("id", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(["batch_id"], ["batch.id"], name="fk_visit_batch_id_batch", ondelete="CASCADE"),
        sa.ForeignKeyConstraint(
            ["participant_id"], ["participant.id"], name="fk_visit_participant_id_participant"
        ),
        sa.ForeignKeyConstraint(["assignment_id"], ["assignment.id"], name="fk_visit_assignment_id_assignment"),
        sa.PrimaryKeyConstraint("id", name="pk_visit"),
        sa.UniqueConstraint("batch_id", "participant_id", name="uq_visit_batch_id_participant_id"),
        sa.UniqueConstraint("assignment_id", name="uq_visit_assignment_id"),
    )
    op.create_index("ix_visit_participant_id", "visit", ["participant_id"])
    op.create_table(
        "panel_id",
        sa.Column("participant_id", sa.Integer(), nullable=False),
        sa.Column("raw", sa.Text(), nullable=False),
        sa.Column("delete_after", sa.DateTime(timezone=True), nullable=False),
        sa.Column("id", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(
            ["participant_id"], ["participant.id"], name="fk_panel_id_participant_id_participant", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name="pk_panel_id"),
        sa.UniqueConstraint("participant_id", name="uq_panel_id_participant_id"),
    )
    op.create_index("ix_panel_id_delete_after", "panel_id", ["delete_after"])


def downgrade() -> None:
    op.drop_table("panel_id")
    op.drop_table("visit")
    op.drop_index("uq_rating_submission_key_question_id", "rating")
    for column in ("moves", "answered_at", "submission_key"):
        op.drop_column("rating", column)

"""Panels: what they say of submissions, webhooks that were taken, and the ledger of bonuses.

Revision: 0002
"""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    time = sa.DateTime(timezone=True)
    op.create_table(
        "panel_submission",
        sa.Column("id", sa.Integer(), primary_key=True),
        sa.Column("study_id", sa.Integer(), sa.ForeignKey("study.id", name="fk_panel_submission_study_id_study"), nullable=False),
        sa.Column("submission_hash", sa.String(64), nullable=False),
        sa.Column("pid_hash", sa.String(64), nullable=False),
        sa.Column("status", sa.String(24), nullable=False),
        sa.Column("at", time, nullable=False),
        sa.UniqueConstraint("study_id", "submission_hash", name="uq_panel_submission_study_id_submission_hash"),
    )
    op.create_table(
        "panel_event",
        sa.Column("id", sa.Integer(), primary_key=True),
        sa.Column("event_id", sa.String(200), nullable=False),
        sa.Column("study_id", sa.Integer(), sa.ForeignKey("study.id", name="fk_panel_event_study_id_study"), nullable=False),
        sa.Column("at", time, nullable=False),
        sa.UniqueConstraint("event_id", name="uq_panel_event_event_id"),
    )
    op.create_index("ix_panel_event_study_id", "panel_event", ["study_id"])
    op.create_table(
        "payment",
        sa.Column("id", sa.Integer(), primary_key=True),
        sa.Column("study_id", sa.Integer(), sa.ForeignKey("study.id", name="fk_payment_study_id_study"), nullable=False),
        sa.Column("submission_hash", sa.String(64), nullable=False),
        sa.Column("reason", sa.String(48), nullable=False),
        sa.Column("amount", sa.Integer(), nullable=False),
        sa.Column("currency", sa.String(3), nullable=False),
        sa.Column("state", sa.String(8), nullable=False),
        sa.Column("reference", sa.Text(), nullable=True),
        sa.Column("at", time, nullable=False),
        sa.UniqueConstraint("study_id", "submission_hash", "reason", name="uq_payment_study_id_submission_hash_reason"),
    )


def downgrade() -> None:
    for table in ("payment", "panel_event", "panel_submission"):
        op.drop_table(table)

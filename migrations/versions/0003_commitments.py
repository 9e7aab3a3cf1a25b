"""Salted commitments of answers and exclusions, so that the chain outlives a deletion on request.

Revision: 0003
"""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "commitment",
        sa.Column("id", sa.Integer(), primary_key=True),
        sa.Column("study_id", sa.Integer(), sa.ForeignKey("study.id", name="fk_commitment_study_id_study"), nullable=False),
        sa.Column("sequence", sa.Integer(), nullable=False),
        sa.Column("batch", sa.Text(), nullable=False),
        sa.Column("list_number", sa.Integer(), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("item", sa.Text(), nullable=False),
        sa.Column("salt", sa.String(64), nullable=True),
        sa.Column("digest", sa.String(64), nullable=False),
    )
    op.create_index("ix_commitment_study_id", "commitment", ["study_id"])


def downgrade() -> None:
    op.drop_table("commitment")

"""Pictures at the size that people see: their hashes beside the model's, and the judge's movement on them.

Revision: 0005
"""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("image", sa.Column("delivered_sha256", sa.String(64), nullable=True))
    op.add_column("stimulus", sa.Column("edited_sha256", sa.String(64), nullable=True))
    op.add_column("card", sa.Column("delivered_dose", sa.Float(precision=53), nullable=True))


def downgrade() -> None:
    op.drop_column("card", "delivered_dose")
    op.drop_column("stimulus", "edited_sha256")
    op.drop_column("image", "delivered_sha256")

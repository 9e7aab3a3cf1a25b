"""What people answered to the screening questions.

Revision: 0009
"""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("visit", sa.Column("screening", sa.JSON(), nullable=False, server_default="{}"))


def downgrade() -> None:
    op.drop_column("visit", "screening")

"""How long the break before an answer was.

Revision: 0007
"""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("rating", sa.Column("break_ms", sa.Float(53), nullable=True))


def downgrade() -> None:
    op.drop_column("rating", "break_ms")

"""Before the first process that does not write it any more."""

from alembic import op

revision = "r4"
down_revision = "r3"


def upgrade() -> None:
    op.alter_column("customers", "name", nullable=True)

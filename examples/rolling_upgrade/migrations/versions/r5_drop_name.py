"""Contract: no process names it any more."""

from alembic import op

revision = "r5"
down_revision = "r4"


def upgrade() -> None:
    op.drop_column("customers", "name")

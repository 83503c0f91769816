"""Expand: nullable, since version 1 knows nothing of it."""

import sqlalchemy as sa
from alembic import op

revision = "r2"
down_revision = "r1"


def upgrade() -> None:
    op.add_column("customers", sa.Column("full_name", sa.String(200)))

"""When every process writes both. NOT NULL in two steps, of which none scans under its lock."""

from alembic import op

revision = "r3"
down_revision = "r2"

MISSING = "full_name IS NOT NULL"


def upgrade() -> None:
    op.create_check_constraint("has_full_name", "customers", MISSING, postgresql_not_valid=True)
    op.run_batches(
        "fill",
        "UPDATE customers SET full_name = name"
        " WHERE id BETWEEN :first AND :last AND full_name IS NULL",
        table="customers",
        key="id",
    )
    op.validate_constraint("has_full_name", "customers")
    op.alter_column("customers", "full_name", nullable=False)
    op.drop_constraint("has_full_name", "customers")

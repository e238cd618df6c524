"""A webhook's secret may have 512 characters, as the documentation says."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"

_COLUMNS = (
    ("batches", "webhook_secret"),
    ("webhooks", "secret"),
    ("webhooks", "previous_secret"),
    ("deliveries", "secret"),
)


def upgrade() -> None:
    if op.get_context().dialect.name == "sqlite":
        return  # lengths mean nothing to it, and a change would write the tables anew
    for table, column in _COLUMNS:
        op.alter_column(table, column, type_=sa.String(512), existing_type=sa.String(256))

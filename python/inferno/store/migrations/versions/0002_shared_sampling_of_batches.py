"""What the items of a batch have in common is kept once."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    op.add_column("batches", sa.Column("shared", sa.JSON(), nullable=True))

"""The tables. A change here needs a migration in `migrations/versions`; a test compares the two.

Times are UTC seconds since 1970, as floating point. Secrets are kept as SHA-256 digests (keys, refresh tokens) or
argon2id hashes (passwords) only; what Inferno itself must sign with stands in `secrets` and `webhooks`.
"""

from __future__ import annotations

from sqlalchemy import JSON, Boolean, Column, Float, ForeignKey, Index, Integer, MetaData, String, Table, Text

metadata = MetaData(
    naming_convention={
        "pk": "pk_%(table_name)s",
        "uq": "uq_%(table_name)s_%(column_0_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
        "ix": "ix_%(table_name)s_%(column_0_name)s",
    }
)

users = Table(
    "users",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("username", String(64), nullable=False, unique=True),
    Column("email", String(254)),
    Column("role", String(16), nullable=False),
    Column("password_hash", String(256)),  # null: cannot log in
    Column("disabled", Boolean, nullable=False, default=False),
    # Counts what ends all sessions: a new role, a new password, disabling. Tokens carry the count they were made at.
    Column("version", Integer, nullable=False, default=0),
    Column("created", Float, nullable=False),
    Column("last_login", Float),
)

api_keys = Table(
    "api_keys",
    metadata,
    Column("id", String(16), primary_key=True),
    Column("user_id", ForeignKey("users.id", ondelete="CASCADE"), nullable=False, index=True),
    Column("name", String(128), nullable=False),
    Column("digest", String(64), nullable=False),
    Column("scopes", JSON),  # null: all that the role may do
    Column("models", JSON),  # null: every model
    Column("limits", JSON),  # null: the configured ones
    Column("created", Float, nullable=False),
    Column("expires", Float),
    Column("revoked", Float),
    Column("last_used", Float),
)

#: A login and the chain of refresh tokens that came of it.
sessions = Table(
    "sessions",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("user_id", ForeignKey("users.id", ondelete="CASCADE"), nullable=False, index=True),
    Column("digest", String(64), nullable=False),  # of the refresh token that is valid now
    Column("created", Float, nullable=False),
    Column("expires", Float, nullable=False, index=True),
    Column("revoked", Float),
)

revoked_tokens = Table(
    "revoked_tokens",
    metadata,
    Column("jti", String(64), primary_key=True),
    Column("expires", Float, nullable=False, index=True),
)

#: What the server signs with, newest first in use, and derives the salts of cached prompts from.
secrets = Table(
    "secrets",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("purpose", String(32), nullable=False),
    Column("value", String(128), nullable=False),
    Column("created", Float, nullable=False),
    Column("retired", Float),
)

#: Append only. `hash` covers the row and the hash before it, so that a change anywhere breaks the chain.
audit_log = Table(
    "audit_log",
    metadata,
    Column("seq", Integer, primary_key=True, autoincrement=False),
    Column("time", Float, nullable=False),
    Column("actor", String(64), nullable=False),
    Column("address", String(64)),
    Column("action", String(64), nullable=False),
    Column("target", String(256)),
    Column("result", String(32), nullable=False),
    Column("details", Text, nullable=False),  # JSON as it was hashed
    Column("previous", String(64), nullable=False),
    Column("hash", String(64), nullable=False),
)

batches = Table(
    "batches",
    metadata,
    Column("id", String(40), primary_key=True),
    Column("user_id", String(32), nullable=False),
    Column("model", String(256), nullable=False),
    Column("status", String(16), nullable=False),  # processing, completed, failed, cancelled
    Column("total", Integer, nullable=False),
    Column("completed", Integer, nullable=False, default=0),
    Column("failed", Integer, nullable=False, default=0),
    Column("cancelled", Integer, nullable=False, default=0),
    Column("created", Float, nullable=False),
    Column("finished", Float),
    Column("error", JSON),
    Column("webhook_url", String(2048)),
    Column("webhook_secret", String(512)),
    Column("idempotency_key", String(255)),
    Column("fingerprint", String(64), nullable=False),  # SHA-256 of the submitted body
    Column("shared", JSON),  # sampling that all its items have in common
    Index("ix_batches_owner", "user_id", "created"),
    Index("uq_batches_idempotency", "user_id", "idempotency_key", unique=True),
)

batch_items = Table(
    "batch_items",
    metadata,
    Column("batch_id", ForeignKey("batches.id", ondelete="CASCADE"), primary_key=True),
    Column("position", Integer, primary_key=True),
    Column("item_id", String(128), nullable=False),
    Column("request", JSON, nullable=False),  # the prompt, and sampling of its own
    Column("state", String(16), nullable=False),  # queued, running, completed, failed, cancelled
    Column("attempts", Integer, nullable=False, default=0),
    # Who works on it: a result is written only by the holder of the token, which every claim counts up.
    Column("fence", Integer, nullable=False, default=0),
    Column("lease_until", Float),
    Column("result", JSON),
    Index("ix_batch_items_state", "state", "batch_id", "position"),
)

webhooks = Table(
    "webhooks",
    metadata,
    Column("id", String(40), primary_key=True),
    Column("user_id", String(32), nullable=False, index=True),
    Column("url", String(2048), nullable=False),
    Column("events", JSON, nullable=False),
    Column("secret", String(512)),
    Column("previous_secret", String(512)),
    Column("previous_until", Float),
    Column("created", Float, nullable=False),
    Column("disabled", String(64)),  # why, when it is
)

#: The outbox: a row stands here in the same transaction as what it tells of.
deliveries = Table(
    "deliveries",
    metadata,
    Column("id", String(40), primary_key=True),
    Column("webhook_id", String(40), index=True),  # null: the address of a batch
    Column("user_id", String(32), nullable=False),
    Column("url", String(2048), nullable=False),
    Column("secret", String(512)),  # of a batch's own address; a webhook's is looked up when it is sent
    Column("event", String(32), nullable=False),
    Column("payload", JSON, nullable=False),
    Column("state", String(16), nullable=False),  # pending, delivered, dead
    Column("attempts", Integer, nullable=False, default=0),
    Column("next_attempt", Float),
    Column("created", Float, nullable=False),
    Column("finished", Float),
    Column("last_status", Integer),
    Column("last_error", String(64)),
    Index("ix_deliveries_due", "state", "next_attempt"),
)

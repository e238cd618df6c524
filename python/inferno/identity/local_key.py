"""The administrator's key that this machine's own programs use: kept in the data directory, mode 0600."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from sqlalchemy import Connection

from inferno import errors
from inferno.identity import api_keys, audit
from inferno.identity.users import create_user, find_user
from inferno.store.database import Database

ADMIN = "admin"
_FILE = "api-key"


def local_key_file(data_dir: Path) -> Path:
    return data_dir / _FILE


def ensure_local_key(database: Database, data_dir: Path) -> tuple[str, bool]:
    """The key, and whether it was made just now, with the user `admin`. A file that is there is believed: whoever can
    write it can write the database too. Raises ServiceUnavailable when it cannot be kept."""
    path = local_key_file(data_dir)
    try:
        known = path.read_text("utf-8").strip() if path.exists() else None
        if known == "":
            raise errors.ServiceUnavailable(f"{path} is empty; delete it to have a new key made.")
        return database.write_now(lambda connection: _ensure(connection, path, known))
    except (OSError, UnicodeDecodeError) as error:
        raise errors.ServiceUnavailable(f"The API key cannot be kept in {data_dir}: {error}.") from None


def _ensure(connection: Connection, path: Path, known: str | None) -> tuple[str, bool]:
    if known is not None and api_keys.find_key(connection, known) is not None:
        return known, False
    admin = find_user(connection, ADMIN) or create_user(connection, ADMIN, role="admin")
    key, row = api_keys.create_key(connection, admin, "this machine", key=known)
    audit.record(connection, "server", "key.create", target=row.id, user=ADMIN)
    if known is None:
        _keep(path, key)
    return key, known is None


def _keep(path: Path, key: str) -> None:
    """Readers never see half of it."""
    descriptor, temporary = tempfile.mkstemp(dir=path.parent)  # mode 0600
    try:
        with os.fdopen(descriptor, "w") as file:
            file.write(key + "\n")
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise

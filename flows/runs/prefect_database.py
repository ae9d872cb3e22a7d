"""Whether the database of a run's own Prefect server can be opened: asked here in a moment.

The server itself takes ten seconds to say so, and says it in a traceback.
"""

from __future__ import annotations

import os
import socket
import sqlite3
from contextlib import closing
from pathlib import Path

from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError

CONNECT_WAIT_S = 3.0
"""Longest wait for the host of a database, seconds."""

POSTGRES_PORT = 5432


def why_not_opened(url: str) -> str | None:
    """Say why a database cannot be opened; None where nothing speaks against it."""
    try:
        address = make_url(url)
    except (ArgumentError, ValueError):
        return "its address is none of a database"
    if address.get_backend_name() == "sqlite":
        return _why_no_sqlite(address)
    if not address.host:
        return None
    try:
        socket.create_connection((address.host, address.port or POSTGRES_PORT), CONNECT_WAIT_S).close()
    except OSError as problem:
        return f"{address.host}:{address.port or POSTGRES_PORT} does not answer ({problem})"
    return None


def _why_no_sqlite(address: URL) -> str | None:
    name = address.database
    if not name or name == ":memory:" or name.startswith("file:"):
        return None
    path = Path(name)
    if not path.parent.is_dir():
        return f"there is no folder {path.parent}"
    if not os.access(path if path.exists() else path.parent, os.W_OK):
        return f"{path if path.exists() else path.parent} may not be written"
    if not path.exists():
        return None
    try:
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=1)) as database:
            found = database.execute("SELECT name FROM sqlite_master WHERE name = 'alembic_version'")
            versions = database.execute("SELECT version_num FROM alembic_version") if found.fetchone() else ()
            unknown = [version for (version,) in versions if not _has_migration(str(version))]
    except sqlite3.OperationalError:
        return None  # locked for the moment, or something that the server may manage
    except sqlite3.DatabaseError as problem:
        return str(problem)
    return f"another version of Prefect has made it (revision {unknown[0]})" if unknown else None


def _has_migration(revision: str) -> bool:
    """Whether the Prefect that is installed has a migration of this name."""
    import prefect

    folder = Path(prefect.__file__).parent / "server/database/_migrations/versions/sqlite"
    return not folder.is_dir() or any(revision in file.name for file in folder.iterdir())

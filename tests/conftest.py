"""Fixtures for every test: an event loop for `anyio` tests, and models to run on."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from inferno.engine import openmp
from inferno.store.database import Database

openmp.sleep_soon()  # engines in this process too; nothing above has imported one yet
# The same examples each time, however slow the machine.
settings.register_profile(
    "inferno", deadline=None, derandomize=True, database=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("inferno")
sys.path.insert(0, str(Path(__file__).parent.parent))  # `from tests import ...`, however pytest was started


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A llama with random weights: loads in no time, says nonsense, the same every time."""
    from tests.gguf_files import write_tiny_llama

    return write_tiny_llama(tmp_path_factory.mktemp("models") / "tiny.gguf")


@pytest.fixture(scope="session")
def smollm2() -> Path:
    """SmolLM2-135M-Instruct."""
    from inferno.models.catalogue import DEFAULT_MODEL

    from tests.models import cache_dir

    named = os.environ.get("INFERNO_TEST_MODEL")
    return _existing(Path(named) if named else cache_dir() / "models" / f"{DEFAULT_MODEL}.gguf")


@pytest.fixture(scope="session")
def embed_model() -> Path:
    """all-MiniLM-L6-v2: 384 dimensions."""
    from tests.models import embedding_model

    return _existing(embedding_model())


@pytest.fixture(scope="session")
def postgresql_server() -> Iterator[str | None]:
    """The URL of a PostgreSQL server, if one can be had."""
    from tests import postgresql

    with postgresql.server() as url:
        yield url


@pytest.fixture(params=["sqlite", "postgresql"])
def any_database(request: pytest.FixtureRequest) -> Iterator[Database]:
    """An empty database of each kind."""
    from tests import postgresql

    url = ""
    if request.param == "postgresql":
        server = request.getfixturevalue("postgresql_server")
        if server is None:
            pytest.skip("PostgreSQL is not at hand: install it, or set INFERNO_TEST_POSTGRESQL_URL")
        url = postgresql.new_database(server)
    database = Database(url)
    yield database
    database.close()


def _existing(path: Path | None) -> Path:
    if path is None or not path.exists():
        pytest.skip("the model is not here; `python -m tests.models` fetches it")
    return path

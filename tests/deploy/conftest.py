"""Servers over fakes, as tests/server has them."""

from tests.server.conftest import engine, serve  # noqa: F401

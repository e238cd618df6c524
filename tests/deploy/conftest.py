"""Servers over fakes, as tests/server has them."""

from tests.server.conftest import client, connect, engine, serve, services  # noqa: F401

"""The model repository of the server's tests."""

from tests.server.conftest import repository

__all__ = ["repository"]

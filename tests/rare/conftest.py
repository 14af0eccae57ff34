"""What the server's tests have: one server for those that need none of their own."""

from tests.server.conftest import (
    calls,
    gateway,
    pytest_runtest_makereport,
    pytest_runtest_protocol,
    pytest_terminal_summary,
    repository,
    server,
    whole,
)

__all__ = [
    "calls",
    "gateway",
    "pytest_runtest_makereport",
    "pytest_runtest_protocol",
    "pytest_terminal_summary",
    "repository",
    "server",
    "whole",
]

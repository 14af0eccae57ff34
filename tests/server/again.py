"""A pytest plugin: a test that fails because Triton itself died is run once more, and this is told.

Triton 24.10 can die when a client gives a request up (docs/security.md), and the tests do that.
It is known by the line that the launcher writes into the server's log; a process that was killed is
no such death.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from _pytest.runner import runtestprotocol

_DIED = re.compile(r"fastdeployserver: the server died \((?!SIGKILL|SIGTERM)(\w+)\)")
_TOLD = "failed at first"


def _logs(config: pytest.Config) -> dict[Path, int]:
    """All servers' logs of this run of the tests, and how long they are."""
    logs = config._tmp_path_factory.getbasetemp().glob("*/*.log")
    return {log: log.stat().st_size for log in logs}


def _deaths(config: pytest.Config, before: dict[Path, int]) -> list[str]:
    """The signals by which servers have died since the logs were as long as that."""
    new = (log.read_bytes()[before.get(log, 0) :] for log in _logs(config))
    return [signal for text in new for signal in _DIED.findall(text.decode(errors="replace"))]


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item, nextitem: pytest.Item | None) -> bool:
    """In place of pytest's own: the same, a second time where the first does not count."""
    item.ihook.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)
    before = _logs(item.config)
    reports = runtestprotocol(item, log=False, nextitem=nextitem)
    failed = [report for report in reports if report.failed]
    died = _deaths(item.config, before) if failed else []
    if died:
        told = f"{item.nodeid}: {died[-1]}\n{failed[0].longreprtext}\n"
        reports = runtestprotocol(item, log=False, nextitem=nextitem)
        reports[-1].user_properties.append((_TOLD, told))
    for report in reports:
        item.ihook.pytest_runtest_logreport(report=report)
    item.ihook.pytest_runtest_logfinish(nodeid=item.nodeid, location=item.location)
    return True


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    reports = (one for all_of_a_kind in terminalreporter.stats.values() for one in all_of_a_kind)
    properties = (pair for one in reports for pair in getattr(one, "user_properties", ()))
    told = [text for name, text in properties if name == _TOLD]
    if told:
        terminalreporter.section("failed at first, as Triton died, and run once more")
    for text in told:
        terminalreporter.write_line(text)

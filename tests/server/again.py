"""A pytest plugin: a test that fails because Triton itself died is run once more, and this is told.

Triton 24.10 can die when a client gives a request up (docs/security.md), and the tests do that.
It is known by the line that the launcher writes into the server's log; a process that was killed is
no such death.
"""

from __future__ import annotations

import re

import pytest
from _pytest.runner import runtestprotocol

_DIED = re.compile(r"fastdeployserver: the server died \((?!SIGKILL|SIGTERM)(\w+)\)")
_TOLD = pytest.StashKey[list]()


def _deaths(config: pytest.Config) -> list[str]:
    """The signals by which servers have died, in all logs of this run of the tests."""
    logs = config._tmp_path_factory.getbasetemp().glob("*/*.log")
    return [signal for log in logs for signal in _DIED.findall(log.read_text(errors="replace"))]


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item, nextitem: pytest.Item | None) -> bool:
    """In place of pytest's own: the same, a second time where the first does not count."""
    item.ihook.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)
    before = len(_deaths(item.config))
    reports = runtestprotocol(item, log=False, nextitem=nextitem)
    failed = [report for report in reports if report.failed]
    died = _deaths(item.config)
    if failed and len(died) > before:
        told = item.config.stash.setdefault(_TOLD, [])
        told.append((item.nodeid, died[-1], failed[0].longreprtext))
        reports = runtestprotocol(item, log=False, nextitem=nextitem)
    for report in reports:
        item.ihook.pytest_runtest_logreport(report=report)
    item.ihook.pytest_runtest_logfinish(nodeid=item.nodeid, location=item.location)
    return True


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    told = terminalreporter.config.stash.get(_TOLD, [])
    if told:
        terminalreporter.section("failed at first, as Triton died, and run once more")
    for nodeid, signal, text in told:
        terminalreporter.write_line(f"{nodeid}: {signal}\n{text}\n")

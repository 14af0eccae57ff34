"""The examples of all pages but the one of tests/server/test_docs.py, run against the server."""

import pytest

from tests.server.examples import (
    NOT_RUN,
    PAGES,
    QUICK,
    blocks,
    commands,
    is_run,
    run_command,
    run_python,
)

OTHERS = [page for page in PAGES if page != QUICK]


@pytest.mark.parametrize(
    ("page", "command"),
    [(page.name, one) for page in OTHERS for one in commands(page) if is_run(one)],
)
def test_a_command_does_what_it_should(tmp_path, server, gateway, page, command):
    run_command(command, tmp_path, server, gateway)


def test_what_is_not_run_is_in_the_pages():
    """A reason for a command that no page has is forgotten here."""
    lines = [command for page in PAGES for command in commands(page)]
    for prefix in NOT_RUN:
        assert any(line.startswith(prefix) for line in lines), prefix


@pytest.mark.parametrize(
    "page", [page for page in OTHERS if blocks(page, "python")], ids=lambda page: page.name
)
def test_a_pages_python_runs_from_its_beginning_to_its_end(
    server, gateway, page, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    run_python(page, tmp_path, server, gateway)

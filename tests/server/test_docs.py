"""The examples of one page, run against the server."""

import pytest

from tests.server.examples import QUICK, commands, run_command, run_python


@pytest.mark.parametrize("command", commands(QUICK))
def test_a_command_does_what_it_should(tmp_path, server, gateway, command):
    run_command(command, tmp_path, server, gateway)


def test_a_pages_python_runs_from_its_beginning_to_its_end(server, gateway, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run_python(QUICK, tmp_path, server, gateway)

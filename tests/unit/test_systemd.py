"""The units of systemd: what it says of them, and what they start."""

import argparse
import configparser
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from triptych.commands.gateway import add_arguments

FOLDER = Path(__file__).resolve().parents[2] / "deploy" / "systemd"
SERVER, GATEWAY = (FOLDER / f"{name}.service" for name in ("triptych", "triptych-gateway"))
PREFIX = "/opt/triptych/.venv/bin"


def service(path):
    unit = configparser.ConfigParser(interpolation=None)
    unit.optionxform = str
    unit.read_string(path.read_text())
    return unit["Service"]


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="needs systemd-analyze")
@pytest.mark.parametrize("unit", sorted(FOLDER.iterdir()), ids=lambda path: path.stem)
def test_systemd_finds_nothing_to_say_about_a_unit(unit, tmp_path):
    """Of a name that it does not know it says so, and goes on."""
    copy = tmp_path / unit.name
    copy.write_text(unit.read_text().replace(PREFIX, str(Path(sys.executable).parent)))
    done = subprocess.run(
        ["systemd-analyze", "verify", copy],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "")


def test_the_gateway_is_started_with_flags_that_it_has():
    command, name, *flags = service(GATEWAY)["ExecStart"].split()
    assert (command, name) == (f"{PREFIX}/triptych", "gateway")
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    options = parser.parse_args(flags)
    assert options.api_key_file
    assert options.timeout <= options.exit_timeout_secs < int(service(GATEWAY)["TimeoutStopSec"])


def test_the_server_is_waited_for_until_the_longest_picture_is_drawn():
    unit = service(SERVER)
    (waits,) = [word for word in unit["ExecStart"].split() if "--exit-timeout-secs=" in word]
    assert 300 <= int(waits.partition("=")[2]) < int(unit["TimeoutStopSec"])
    assert unit["KillMode"] == "mixed"


def test_the_server_keeps_its_gpus():
    """DeviceAllow and what implies it leave no device but those that it names."""
    assert not {"PrivateDevices", "ProtectClock", "DeviceAllow", "DevicePolicy"} & {
        *service(SERVER)
    }

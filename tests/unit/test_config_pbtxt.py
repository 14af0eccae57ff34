"""A neighbour's config.pbtxt, read without protobuf."""

from pathlib import Path

import pytest
from google.protobuf import json_format, text_format
from tritonclient.grpc import model_config_pb2

from triptych import config_pbtxt
from triptych.errors import ModelFileError

REPOSITORY = Path(__file__).resolve().parents[2] / "model_repository"
FILES = sorted(REPOSITORY.glob("*/config.pbtxt"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.parent.name)
def test_it_says_what_protobuf_reads(path):
    whole = text_format.Parse(path.read_text(), model_config_pb2.ModelConfig())
    theirs = json_format.MessageToDict(whole, preserving_proto_field_name=True)
    ours = config_pbtxt.read(path)
    assert set(ours) == set(theirs)
    parameters = {name: one["string_value"] for name, one in theirs.get("parameters", {}).items()}
    assert config_pbtxt.parameters(ours) == parameters
    group = theirs.get("optimization", {}).get("execution_accelerators", {})
    entries = group.get("gpu_execution_accelerator", [])
    expected = {entry["name"]: entry.get("parameters", {}) for entry in entries}
    assert config_pbtxt.accelerators(ours) == expected
    assert [one["name"] for one in ours["input"]] == [[one["name"]] for one in theirs["input"]]


def test_every_way_to_write_it():
    said = config_pbtxt.parse(
        """
        name: 'a' "b"  # the texts are one
        input { name: "x" dims: [ 4, -1 ] } input < name: "y" dims: 3; dims: 5 >
        parameters: [ { key: "one", value: { string_value: "say \\"#1\\"" } } ]
        parameters { key: "two" value { string_value: "2" } },
        optimization { execution_accelerators { gpu_execution_accelerator : [
            { name: "tensorrt" }, { name: "max_shape" parameters { key: "x" value: "8 4" } } ] } }
        """
    )
    assert said["name"] == ["ab"]
    assert said["input"] == [
        {"name": ["x"], "dims": ["4", "-1"]},
        {"name": ["y"], "dims": ["3", "5"]},
    ]
    assert config_pbtxt.parameters(said) == {"one": 'say "#1"', "two": "2"}
    assert config_pbtxt.accelerators(said) == {"tensorrt": {}, "max_shape": {"x": "8 4"}}
    assert config_pbtxt.accelerators(said, "cpu_execution_accelerator") == {}
    assert config_pbtxt.parse("") == {}


@pytest.mark.parametrize(
    "text",
    ["name: }", "name:", "input { name: 'x'", "dims: [ 1, 2", "{ }", "name: 'x", "a: @", "}"],
)
def test_what_is_none_is_refused(text, tmp_path):
    path = tmp_path / "config.pbtxt"
    path.write_text(text)
    with pytest.raises(ModelFileError, match=r"config\.pbtxt: cannot be read \("):
        config_pbtxt.read(path)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ModelFileError, match=r"config\.pbtxt: cannot be read \(No such file"):
        config_pbtxt.read(tmp_path / "config.pbtxt")

"""A Chrome trace out of what Triton 24.10 wrote for one picture, shortened."""

import pytest

from triptych.commands.trace import LATER, chrome


def part(number, model, parent=None, **stamps):
    named = {"id": number, "model_name": model, "model_version": 1}
    if parent:
        named["parent_id"] = parent
    times = [{"id": number, "timestamps": [{"name": n, "ns": ns}]} for n, ns in stamps.items()]
    return [named, *times]


def stage(number, model, parent, begin, end):
    stamps = {"REQUEST_START": begin, "QUEUE_START": begin + 1_000, "COMPUTE_START": begin + 3_000}
    stamps.update(COMPUTE_INPUT_END=begin + 4_000, COMPUTE_OUTPUT_START=end - 2_000)
    return part(number, model, parent, **stamps, COMPUTE_END=end - 1_000, REQUEST_END=end)


PARTS = [
    *stage(4, "vae_decoder", 1, 900_000, 950_000),
    *stage(3, "unet_loop", 1, 150_000, 170_000),
    *stage(2, "tokenizer", 1, 110_000, 151_000),
    *part(1, "sd_ensemble", REQUEST_START=100_000, QUEUE_START=101_000, REQUEST_END=960_000),
    *stage(9, "tokenizer", 8, 10_000_000, 10_050_000),
    *part(8, "other", REQUEST_START=10_000_000, REQUEST_END=10_060_000),
]


def events(parts, model="sd_ensemble"):
    """(row's name, event's name) -> (begin, duration), in microseconds."""
    found = chrome(parts, model)["traceEvents"]
    rows = {one["tid"]: one["args"]["name"] for one in found if one["ph"] == "M"}
    return {
        (rows[one["tid"]], one["name"]): (one["ts"], one["dur"])
        for one in found
        if one["ph"] == "X"
    }


def test_each_stage_has_a_row_and_its_phases():
    found = events(PARTS)
    assert found["sd_ensemble", "sd_ensemble"] == (0, 860)
    assert found["tokenizer", "tokenizer"] == (10, 41)
    assert found["tokenizer", "queue"] == (11, 2)
    assert found["tokenizer", "input"] == (13, 1)
    assert found["tokenizer", "compute"] == (14, 35)
    assert found["tokenizer", "output"] == (49, 1)


def test_a_stage_that_is_answered_later_ends_where_the_next_one_starts():
    found = events(PARTS)
    assert found["unet_loop", "unet_loop"] == (50, 750)
    assert found["unet_loop", LATER] == (70, 730)
    assert ("tokenizer", LATER) not in found
    assert ("vae_decoder", LATER) not in found


def test_of_several_requests_the_last():
    again = [{**one, "id": one["id"] + 20} for one in PARTS]
    again = [
        {**one, "parent_id": one["parent_id"] + 20} if "parent_id" in one else one for one in again
    ]
    begun = part(50, "sd_ensemble", REQUEST_START=1)
    assert len(events(PARTS + again + begun)) == len(events(PARTS))


def test_without_such_a_request():
    with pytest.raises(ValueError, match="no request of sd_ensemble"):
        chrome(PARTS[:3], "sd_ensemble")

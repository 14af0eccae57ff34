"""Messages of Protocol Buffers, read and written as far as ONNX's files need it.

https://protobuf.dev/programming-guides/encoding and onnx.proto have the numbers.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any


def varint(number: int) -> bytes:
    """A whole number from 0."""
    out = bytearray()
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    return bytes([*out, number])


def message(number: int, content: bytes) -> bytes:
    """The field `number` with a text or a message in it."""
    return varint(number << 3 | 2) + varint(len(content)) + content


def spans(data: Any, at: int, end: int) -> Iterator[tuple[int, int, int, int]]:
    """For each field its number, where its contents begin and end, and where it begins itself."""
    begin = at
    for number, first, last, _ in fields(data, at, end):
        yield number, first, last, begin
        begin = last


def fields(data: Any, at: int, end: int) -> Iterator[tuple[int, int, int, int | None]]:
    """For each field its number, where its contents begin and end, and its value as a varint.

    Raises ValueError for what is no message.
    """
    while at < end:
        key, at = _read_varint(data, at)
        wire, value = key & 7, None
        first = at
        if wire == 0:
            value, at = _read_varint(data, at)
        elif wire == 2:
            length, first = _read_varint(data, at)
            at = first + length
        elif wire in (1, 5):
            at += 8 if wire == 1 else 4
        else:
            raise ValueError("not an ONNX model")
        if at > end:
            raise ValueError("an ONNX model that is cut off")
        yield key >> 3, first, at, value


def _read_varint(data: Any, at: int) -> tuple[int, int]:
    number = shift = 0
    while True:
        if at >= len(data) or shift > 63:
            raise ValueError("not an ONNX model")
        byte = data[at]
        number |= (byte & 127) << shift
        shift, at = shift + 7, at + 1
        if byte < 128:
            return number, at


def packed(data: Any, at: int, end: int) -> list[int]:
    """The varints that follow each other in data[at:end]."""
    numbers = []
    while at < end:
        number, at = _read_varint(data, at)
        numbers.append(number)
    return numbers


def values(data: Any, start: int, end: int) -> Mapping[int, bytes]:
    """The first value of each field that is a text or message, except large ones."""
    found: dict[int, bytes] = {}
    for number, first, last, value in fields(data, start, end):
        if value is None and last - first < 2**24:
            found.setdefault(number, data[first:last])
    return found


def every(number: int, data: Any, start: int, end: int) -> list[bytes]:
    """All values of a field of texts or messages, in their order."""
    return [data[first:last] for key, first, last, _ in fields(data, start, end) if key == number]


def text(value: bytes | None) -> str:
    """What a field says; nothing where it is not there."""
    return (value or b"").decode("utf-8", "replace")

"""Reading and changing Triton's command line. Flags that are unknown here are left as they are."""

from __future__ import annotations

from collections.abc import Callable

from triptych.server import Unfit


def values(arguments: list[str], flag: str) -> list[str]:
    """The values that `arguments` give `flag`, as `--flag=value` or `--flag value`, in order."""
    found = []
    for position, argument in enumerate(arguments):
        if argument.startswith(flag + "="):
            found.append(argument[len(flag) + 1 :])
        elif argument == flag and position + 1 < len(arguments):
            found.append(arguments[position + 1])
    return found


def value(arguments: list[str], flag: str, default: str | None = None) -> str | None:
    """The last value of `flag`, or `default`."""
    found = values(arguments, flag)
    return found[-1] if found else default


def boolean(arguments: list[str], flag: str, default: bool) -> bool:
    """The last value of `flag`, in one of Triton's spellings. Raises Unfit for any other."""
    text = value(arguments, flag, str(default)).lower()
    if text not in ("true", "false", "1", "0"):
        raise Unfit(f"{flag}={text}: allowed: true, false")
    return text in ("true", "1")


def without(arguments: list[str], flag: str) -> list[str]:
    """`arguments` without `flag` and its values."""
    kept = []
    skip = False
    for argument in arguments:
        if skip:
            skip = False
        elif argument == flag:
            skip = True
        elif not argument.startswith(flag + "="):
            kept.append(argument)
    return kept


def each(arguments: list[str], flag: str, change: Callable[[str], str]) -> list[str]:
    """`arguments` with `change(value)` in place of every value of `flag`."""
    changed = list(arguments)
    for position, argument in enumerate(arguments):
        if argument.startswith(flag + "="):
            changed[position] = f"{flag}={change(argument[len(flag) + 1 :])}"
        elif argument == flag and position + 1 < len(arguments):
            changed[position + 1] = change(arguments[position + 1])
    return changed


def with_defaults(arguments: list[str], **defaults: str) -> list[str]:
    """`arguments` with those of `defaults` added that they do not give.

    http_port="1" stands for --http-port=1.
    """
    added = []
    for name, default in defaults.items():
        flag = "--" + name.replace("_", "-")
        if not values(arguments, flag):
            added.append(f"{flag}={default}")
    return arguments + added

"""What can go wrong with a request to a server, as the Python client says it."""

from __future__ import annotations


class ClientError(Exception):
    """A request failed; `exit_code` is the exit code of client.py for this kind of error."""

    exit_code = 1


class Refused(ClientError):
    """The server refused the request; the text names the setting, its value and what is allowed."""

    exit_code = 2


class NotThere(ClientError):
    """No server answers at the address."""

    exit_code = 3


class NotReady(ClientError):
    """The server is there, but has not loaded the model."""

    exit_code = 4


class Overloaded(ClientError):
    """The server is there and takes no more requests now."""

    exit_code = 5


class TimedOut(ClientError):
    """The picture did not come within the timeout."""

    exit_code = 6


class GivenUp(ClientError):
    """The picture was given up by `PictureStream.cancel`."""

    exit_code = 130

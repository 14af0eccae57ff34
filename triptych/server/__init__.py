"""Finding a Triton on this machine, starting it, and leaving nothing behind when it ends."""


class Unfit(Exception):
    """Why the server cannot start here, and what to do about it, in one line."""

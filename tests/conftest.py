"""What holds for all tests."""

import os
import signal

from hypothesis import settings

# On a busy machine an example of a millisecond can take a second.
settings.register_profile("busy machine", deadline=None)
settings.load_profile("busy machine")

# Tests run make and press Ctrl-C as on a terminal, not as below the make that runs them, which may
# be in the background of a shell.
for name in ("MAKEFLAGS", "MFLAGS", "MAKELEVEL"):
    os.environ.pop(name, None)
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

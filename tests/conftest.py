"""What holds for all tests."""

from hypothesis import settings

# On a busy machine an example of a millisecond can take a second.
settings.register_profile("busy machine", deadline=None)
settings.load_profile("busy machine")

"""The error for data that turn out to be unusable when they are read."""

from upchirp.errors import InputError


class DataFault(InputError):
    """A fault of the data that shows when an image is read; what was trained until then is worth keeping."""

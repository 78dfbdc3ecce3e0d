"""The one exception type for bad input."""


class InputError(ValueError):
    """Input that the user can correct.

    The message is one line that says what is wrong and what to do. The command line prints it and exits with
    code 2; a library user catches it as a `ValueError`.

    >>> raise InputError("batch size is 0: choose 1 or more")
    Traceback (most recent call last):
    ...
    upchirp.errors.InputError: batch size is 0: choose 1 or more
    """

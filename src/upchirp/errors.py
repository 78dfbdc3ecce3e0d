"""The one exception type for bad input, and errors of others as a line."""


class InputError(ValueError):
    """Input that the user can correct.

    The message is one line that says what is wrong and what to do. The command line prints it and exits with
    code 2; a library user catches it as a `ValueError`.

    >>> raise InputError("batch size is 0: choose 1 or more")
    Traceback (most recent call last):
    ...
    upchirp.errors.InputError: batch size is 0: choose 1 or more
    """


def one_line(error: BaseException) -> str:
    """What an error says, on one line; its type if it says nothing.

    >>> one_line(ValueError("two   parts")), one_line(KeyError())
    ('two parts', 'KeyError')
    """
    return " ".join(str(error).split()) or type(error).__name__

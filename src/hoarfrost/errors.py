"""The two ways in which a run can end other than well."""


class InputError(Exception):
    """Something the user gave cannot be used.

    The message is one line that a structural biologist can act on: the file, the row or column, what was
    expected and what to try. The command line prints it and exits with code 2.
    """


class Interrupted(Exception):
    """The run was asked to stop (Ctrl-C or a stop signal) and has written a checkpoint."""

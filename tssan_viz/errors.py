"""Errors that are addressed to the person at the keyboard."""


class UserError(Exception):
    """Something that the user gave cannot be used; the message says what would be right.

    The command line prints the message and exits with 2, without a traceback.
    """

"""The error that every reader, recipe and data set of this package raises for bad input."""


class DataError(ValueError):
    """A file, a recipe or a data set is not what it should be; the message says where and why."""

"""The error that every reader, recipe and data set of this package raises for bad input."""


class DataError(ValueError):
    """A file, a recipe or a data set is not what it should be; the message says where and why."""


class LostLoss(DataError):
    """A training whose loss is no finite number any more; the message says what to try."""


class LeftOut(DataError):
    """A file that its data set itself says to leave out; preparing goes on without being told."""

"""What can go wrong between a model and its recorded maps."""

from tssan_viz.errors import UserError


class RecordingError(UserError):
    """What was announced and what the model did do not fit together."""


class UnrecordableModel(RecordingError):
    """The model has no attention that the recorder knows how to watch."""


class MissingMaps(RecordingError):
    """A map that was due did not come."""

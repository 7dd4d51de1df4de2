"""Recording: which calls are attention, how their probabilities are had, how they are kept."""

from tssan_viz.recording.errors import MissingMaps, RecordingError, UnrecordableModel
from tssan_viz.recording.probabilities import attention_probabilities, map_measures
from tssan_viz.recording.recorder import Recorder, record
from tssan_viz.recording.sites import find_attention

__all__ = [
    "MissingMaps",
    "Recorder",
    "RecordingError",
    "UnrecordableModel",
    "attention_probabilities",
    "find_attention",
    "map_measures",
    "record",
]

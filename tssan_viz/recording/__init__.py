"""Recording: which calls are attention, how their probabilities are had, how they are kept."""

from tssan_viz.recording.calls import WatchedSite
from tssan_viz.recording.errors import MissingMaps, RecordingError, UnrecordableModel
from tssan_viz.recording.policies import Policy, Probe
from tssan_viz.recording.probabilities import attention_probabilities, map_measures
from tssan_viz.recording.recorder import Recorder, record
from tssan_viz.recording.report import Report
from tssan_viz.recording.sinks import Block, Sink
from tssan_viz.recording.sites import find_sites

__all__ = [
    "Block",
    "MissingMaps",
    "Policy",
    "Probe",
    "Recorder",
    "RecordingError",
    "Report",
    "Sink",
    "UnrecordableModel",
    "WatchedSite",
    "attention_probabilities",
    "find_sites",
    "map_measures",
    "record",
]

"""Compare maps of classes, subjects, cameras, outcomes and runs, with a test that holds.

`compare` and `compare_class` answer from a store; `statistics` and `contrasts` work on arrays
alone.
"""

from tssan_viz.comparison.class_comparison import ClassComparison, compare_class
from tssan_viz.comparison.comparing import compare
from tssan_viz.comparison.comparison import Comparison
from tssan_viz.comparison.group_comparison import GroupComparison
from tssan_viz.comparison.run_comparison import RunComparison
from tssan_viz.comparison.similarity import METRICS

__all__ = [
    "METRICS",
    "ClassComparison",
    "Comparison",
    "GroupComparison",
    "RunComparison",
    "compare",
    "compare_class",
]

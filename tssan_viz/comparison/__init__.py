"""Compare classes: similarity within and between them, over subjects, with a test that holds.

`compare_class` answers from a store; `statistics` works on arrays alone.
"""

from tssan_viz.comparison.class_comparison import ClassComparison, compare_class
from tssan_viz.comparison.similarity import METRICS

__all__ = ["METRICS", "ClassComparison", "compare_class"]

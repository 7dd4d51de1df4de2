"""What a recording has done so far, in numbers and in words."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Report:
    """What a recorder has done so far; printed, it is a table.

    Attributes
    ----------
    run
        Name of the recording.
    sites
        Attention calls that are watched.
    calls, calls_left_out
        Forward calls that were announced, and those of them that were left out, by reason: what of
        the policy it was, or ``failed``, since the model raised.
    rows, absent
        Rows handed to the sink, and rows of persons who are not there.
    rows_acknowledged
        Rows that are safe: in a store, on the disk.
    rows_skipped
        Those of them that the store held already, and that were not written again.
    rows_dropped, rows_lost
        Rows for which the queue had no room, and rows that an error kept from the sink.
    maps_due, maps_recorded
        Sites × recorded calls, and how many of them came.
    bytes
        Of the maps handed to the sink.
    seconds
        Spent by the thread that calls the model: ``compute`` (probabilities and measures),
        ``transfer`` (starting copies), ``queue`` (waiting for room or for the writer) and
        ``bookkeeping``; by the device: ``device`` (CUDA only); by the writing thread: ``write``.
    notes
        What the watcher has to say: deviations that a compiler brought, recompilations.
    """

    run: str
    sites: int
    calls: int
    calls_left_out: dict[str, int]
    rows: int
    absent: int
    rows_acknowledged: int
    rows_skipped: int
    rows_dropped: int
    rows_lost: int
    maps_due: int
    maps_recorded: int
    bytes: int
    seconds: dict[str, float]
    notes: tuple[str, ...] = field(default=())

    @property
    def seconds_spent(self) -> float:
        """What recording has cost the thread that calls the model."""
        return sum(self.seconds[stage] for stage in ("compute", "transfer", "queue", "bookkeeping"))

    def __str__(self) -> str:
        left_out = [
            f"{count} by {reason}" for reason, count in self.calls_left_out.items() if count
        ]
        aside = [
            f"{count} {what}"
            for count, what in (
                (self.rows_skipped, "there already, not written again"),
                (self.rows_dropped, "dropped: the queue was full"),
                (self.rows_lost, "lost: the sink failed"),
                (max(0, self.rows - self.rows_acknowledged), "not yet acknowledged"),
            )
            if count
        ]
        lines = [
            ("sites", f"{self.sites}"),
            ("calls", f"{self.calls}" + _aside(left_out, "left out: ")),
            (
                "rows",
                f"{self.rows}"
                + (f", and {self.absent} of nobody" if self.absent else "")
                + _aside(aside),
            ),
            ("maps", f"{self.maps_recorded} of {self.maps_due} due, {_size(self.bytes)}"),
            (
                "time",
                ", ".join(f"{name} {_time(value)}" for name, value in self.seconds.items()),
            ),
            *(("note", note) for note in self.notes),
        ]
        width = max(len(name) for name, _ in lines)
        return "\n".join(
            [f"recording of {self.run}", *(f"  {name:<{width}}  {text}" for name, text in lines)]
        )

    __repr__ = __str__


def _aside(parts: list[str], before: str = "") -> str:
    return f" ({before}{', '.join(parts)})" if parts else ""


def _size(count: int) -> str:
    for unit in ("B", "kB", "MB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000  # type: ignore[assignment]
    return f"{count:.1f} GB"


def _time(seconds: float) -> str:
    return f"{seconds * 1000:.0f} ms" if seconds < 1 else f"{seconds:.1f} s"

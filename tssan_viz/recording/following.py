"""What the callbacks of all training loops do: watch, look at the probe now and then, log."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from tssan_viz.recording.errors import RecordingError
from tssan_viz.recording.loggers import heads_figure, log_figure, log_measures
from tssan_viz.recording.policies import Probe
from tssan_viz.recording.recorder import Recorder
from tssan_viz.recording.report import Report


class Following:
    """Follows one training.

    Parameters
    ----------
    recorder
        Not yet entered.
    probe
        Looked at by `look`; or a function that makes it from the model at the beginning; None:
        there is none.
    every_n_epochs
        How often the probe's turn comes.
    loggers
        See `tssan_viz.recording.loggers`.
    figures
        Patterns of the sites whose heads are drawn for the loggers.
    steps
        Whether training steps are recorded; if not, the recorder sleeps but for the probe.
    """

    def __init__(
        self,
        recorder: Recorder,
        *,
        probe: Probe | Callable[[Any], Probe] | None,
        every_n_epochs: int,
        loggers: Sequence[Any],
        figures: Sequence[str],
        steps: bool,
    ) -> None:
        if every_n_epochs < 1:
            raise RecordingError(f"every_n_epochs is {every_n_epochs}; it is at least 1")
        self._recorder = recorder
        self._probe = probe
        self._every = every_n_epochs
        self._loggers = loggers
        self._figures = figures
        self._steps = steps

    def begin(self) -> None:
        """Begin to watch."""
        if callable(self._probe):
            self._probe = self._probe(self._recorder.model)
        if self._figures:
            self._recorder.average(self._figures)
        self._recorder.__enter__()
        if not self._steps:
            self._recorder.pause()

    def look(self, step: int, epoch: int) -> None:
        """Look at the probe, if it is the epoch's turn, and log what there is.

        Parameters
        ----------
        step, epoch
            Steps taken and epochs finished; the probe's turn comes at 0 and at every n-th.
        """
        if epoch % self._every:
            return
        if isinstance(self._probe, Probe):
            if self._loggers and self._steps:
                self._log(step)  # the training steps' own, so that the probe's stand alone
            self._recorder.probe(self._probe, step=step, epoch=epoch)
        self._log(step, "probe" if isinstance(self._probe, Probe) else "train")

    def sleep(self) -> None:
        """Pass over what the model does until `wake`."""
        self._recorder.pause()

    def wake(self) -> None:
        """Go on, unless training steps are not recorded anyway."""
        if self._steps:
            self._recorder.resume()

    def end(self, error: BaseException | None) -> None:
        """Bring everything to its place."""
        kind = None if error is None else type(error)
        trace = None if error is None else error.__traceback__
        self._recorder.__exit__(kind, error, trace)

    def _log(self, step: int, phase: str = "train") -> None:
        if not self._loggers:
            return
        means, maps_of_sites = self._recorder.means(), self._recorder.mean_maps()
        numbers = {site.name: site.numbers for site in self._recorder.sites}
        if means:
            log_measures(self._loggers, means, step=step, phase=phase, heads=numbers)
        maps = {
            (site, head): values
            for site, of_heads in maps_of_sites.items()
            for head, values in zip(numbers[site], of_heads, strict=True)
        }
        if maps:
            log_figure(self._loggers, f"attention/{phase}", heads_figure(maps), step=step)


def check_anything(describe: object, probe: object) -> None:
    """Refuse a callback that would record nothing.

    Raises
    ------
    RecordingError
        Neither training steps nor a probe.
    """
    if describe is None and probe is None:
        raise RecordingError(
            "nothing would be recorded: give describe= (training steps), probe= (a fixed set "
            "of samples after each epoch), or both"
        )


class Followed:
    """What a training loop's callback keeps of the training that it follows.

    Attributes
    ----------
    recorder : Recorder or None
        While there is training.
    report : Report or None
        After it.
    """

    _following: Following | None = None
    recorder: Recorder | None = None
    report: Report | None = None

    def _end(self, error: BaseException | None) -> None:
        """Bring everything to its place, once."""
        following, self._following = self._following, None
        if following is None:
            return
        assert self.recorder is not None
        try:
            following.end(error)
        finally:
            self.report = self.recorder.report()
            self.recorder = None

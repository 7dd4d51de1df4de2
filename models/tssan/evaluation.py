"""What a trained run gets right: accuracy with its uncertainty over people, class by class."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd
from scipy import stats

from tssan.errors import DataError
from tssan.run_folder import cannot_write, note_evaluation, only_writer, write_text

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from tssan.dataset import SkeletonDataset
    from tssan.training import TrainedRun

Part = Literal["test", "train", "validation"]
TOP = 5  # the k of top-k, as Kinetics has it
FEW_SUBJECTS = 10  # under so many the bootstrap is known to give intervals that are too narrow


@dataclass(frozen=True)
class Interval:
    """A 95 % confidence interval of an accuracy.

    Attributes
    ----------
    low, high
        Shares, from 0 to 1.
    method
        How it was computed, in words.
    units, unit
        How many independent units it rests on, and what they are: ``subject`` or ``video``.
    reliable
        False where the units are few; `method` says so too.
    """

    low: float
    high: float
    method: str
    units: int
    unit: str
    reliable: bool


@dataclass(frozen=True, eq=False)
class Evaluation:
    """A run's predictions on one part of a data set, and what follows from them.

    Attributes
    ----------
    run, recipe, dataset, protocol, part
        What was evaluated: the run's folder and recipe, on which part of which data.
    selection
        What the run looked at to choose its epoch, in words.
    predictions
        One line per sequence: sample, label, class_name, subject, camera, predicted,
        predicted_name, confidence, rank (of the true class, from 1), correct.
    confusion
        int64 (classes, classes): true class by predicted class.
    per_class
        One line per class: label, class_name, class_code, sequences, correct, accuracy (NaN where
        the part has no sequence of it), taken_for (the most frequent wrong answer, or None).
    interval
        Of the accuracy over subjects; None where none can be given, and then `no_interval` says
        why.
    test_evaluations
        How often the test part was looked at with this run, this time included.
    same_data
        Whether the data are, bit for bit, those that the run was trained on.
    """

    run: str
    recipe: str
    dataset: str
    protocol: str
    part: Part
    selection: str
    predictions: pd.DataFrame
    confusion: NDArray[np.int64]
    per_class: pd.DataFrame
    interval: Interval | None
    no_interval: str | None
    test_evaluations: int
    same_data: bool

    @property
    def top1(self) -> float:
        """Share of the sequences whose class comes first."""
        return float(self.predictions["correct"].mean())

    @property
    def top5(self) -> float | None:
        """Share whose class is among the first five; None where there are no more than five."""
        if len(self.per_class) <= TOP:
            return None
        return float((self.predictions["rank"] <= TOP).mean())

    @property
    def mean_class_accuracy(self) -> float:
        """Mean of the classes' accuracies, each class counting the same."""
        return float(self.per_class["accuracy"].mean())

    def summary(self) -> dict[str, Any]:
        """Return the numbers as plain values, ready for JSON."""
        return {
            "run": self.run,
            "recipe": self.recipe,
            "dataset": self.dataset,
            "protocol": self.protocol,
            "part": self.part,
            "selection": self.selection,
            "sequences": len(self.predictions),
            "correct": int(self.predictions["correct"].sum()),
            "top1": self.top1,
            "top5": self.top5,
            "mean_class_accuracy": self.mean_class_accuracy,
            "interval": None if self.interval is None else asdict(self.interval),
            "no_interval": self.no_interval,
            "test_evaluations": self.test_evaluations,
            "same_data": self.same_data,
        }

    def write(self, out: Path) -> list[Path]:
        """Write numbers, tables and the picture into a folder; return the files.

        The files are evaluation.json, predictions.csv, per-class.csv, confusion.csv, confusion.pdf
        and confusion.png; each is whole or not there.

        Raises
        ------
        DataError
            The folder cannot be written, or the disk is full.
        """
        try:
            return self._write(out)
        except OSError as error:
            raise cannot_write(out, error) from error

    def _write(self, out: Path) -> list[Path]:
        from tssan.plots import draw_confusion

        out.mkdir(parents=True, exist_ok=True)
        names = self.per_class["class_name"].tolist()
        text = json.dumps(self.summary(), indent=2, allow_nan=False)
        write_text(out / "evaluation.json", text + "\n")
        write_text(out / "predictions.csv", self.predictions.to_csv(index=False))
        write_text(out / "per-class.csv", self.per_class.to_csv(index=False))
        confusion = pd.DataFrame(self.confusion, index=pd.Index(names, name="true"), columns=names)
        write_text(out / "confusion.csv", confusion.to_csv())
        title = (
            f"{self.recipe} · {self.dataset} {self.protocol}, {self.part} part · "
            f"{100 * self.top1:.1f} % of {len(self.predictions)}"
        )
        if "test part" in self.selection:
            title += f"\n{self.selection}"
        draw_confusion(self.confusion, names, out / "confusion", title=title)
        return [
            out / name
            for name in (
                *("evaluation.json", "predictions.csv", "per-class.csv"),
                *("confusion.csv", "confusion.pdf", "confusion.png"),
            )
        ]


def evaluate(
    run: TrainedRun, dataset: SkeletonDataset, part: Part = "test", *, progress: bool = True
) -> Evaluation:
    """Ask a trained run for every sequence of one part of its data.

    A look at the test part is noted in the run's folder.

    Parameters
    ----------
    run
        A finished run.
    dataset
        The data set that it was trained on.
    part
        ``test``, ``train`` (what was fitted) or ``validation`` (what was held out of it).
    progress
        Show a progress bar.

    Returns
    -------
    Evaluation
        Nothing is written yet but the note.

    Raises
    ------
    DataError
        The data set is another one, or the run held nothing out; or the training or the validation
        part is asked for, and the data were changed since, so that nobody knows which they were;
        or the run's folder is not to be written, so that a look could not be counted.
    """
    import torch

    from tssan.sequences import Sequences
    from tssan.training import scores

    run.refuse_other(dataset)
    positions = _positions(run, dataset, part)
    sequences = Sequences.load(dataset, positions, run.recipe.clips.persons)
    network = run.network.to("cuda" if torch.cuda.is_available() else "cpu")
    logits = scores(network, sequences, run.recipe, progress=progress)
    predictions = tabulate(logits.numpy(), dataset, positions)
    if part == "test":
        accuracy = float(predictions["correct"].mean())
        try:
            with only_writer(run.path):
                note_evaluation(run.path, "evaluate", times=1, accuracy=accuracy)
        except OSError as error:
            # A look that is not counted is not shown either.
            raise cannot_write(run.path, error) from error
    counts = confusion(
        predictions["label"].to_numpy(), predictions["predicted"].to_numpy(), len(dataset.classes)
    )
    interval = accuracy_interval(predictions["correct"], predictions["subject"])
    return Evaluation(
        run=str(run.path),
        recipe=run.recipe.name,
        dataset=dataset.name,
        protocol=run.protocol,
        part=part,
        selection=run.recipe.training.selection,
        predictions=predictions,
        confusion=counts,
        per_class=_per_class(counts, dataset),
        interval=None if isinstance(interval, str) else interval,
        no_interval=interval if isinstance(interval, str) else None,
        test_evaluations=run.evaluations,
        same_data=run.results.get("fingerprint") == dataset.fingerprint,
    )


def _positions(run: TrainedRun, dataset: SkeletonDataset, part: Part) -> NDArray[np.int64]:
    from tssan.sequences import divide

    split = dataset.split(run.protocol)
    if part == "test":
        return split.test
    training = run.recipe.training
    if run.results.get("fingerprint") != dataset.fingerprint:
        raise DataError(
            f"{run.path} was trained on other data than {dataset.path} holds now, so that its "
            f"{part} part is not known; prepare the data as they were, or evaluate the test part"
        )
    fitted, held_out = divide(training, dataset.index, split.train, split.test, run.seed)
    if part == "train":
        return fitted
    if training.select_on == "test":
        raise DataError(f"{run.path} has no validation part: it was {training.selection}")
    if not len(held_out):
        raise DataError(f"{run.path} has no validation part: its recipe holds nothing out")
    return held_out


def tabulate(
    logits: NDArray[np.float32], dataset: SkeletonDataset, positions: NDArray[np.int64]
) -> pd.DataFrame:
    """Return the table of predictions (see `Evaluation`) of logits (n, classes)."""
    lines = dataset.index.iloc[positions].reset_index(drop=True)
    label = lines["label"].to_numpy()
    order = np.argsort(-logits, axis=1, kind="stable")  # (n, classes), the likeliest first
    predicted = order[:, 0]
    chance = np.exp(logits.astype(np.float64) - logits.max(axis=1, keepdims=True))
    names = np.array([entry.name for entry in dataset.classes], dtype=object)
    table = lines[["sample", "label", "class_name", "subject", "camera"]].copy()
    table["predicted"] = predicted
    table["predicted_name"] = names[predicted]
    table["confidence"] = chance.max(axis=1) / chance.sum(axis=1)
    table["rank"] = (order == label[:, None]).argmax(axis=1) + 1
    table["correct"] = predicted == label
    return table


def confusion(
    label: NDArray[np.int64], predicted: NDArray[np.int64], classes: int
) -> NDArray[np.int64]:
    """Return how often each true class (rows) was taken for each class (columns)."""
    counts = np.zeros((classes, classes), np.int64)
    np.add.at(counts, (label, predicted), 1)
    return counts


def _per_class(counts: NDArray[np.int64], dataset: SkeletonDataset) -> pd.DataFrame:
    sequences, correct = counts.sum(axis=1), counts.diagonal()
    wrong = counts - np.diag(correct)
    names = [entry.name for entry in dataset.classes]
    return pd.DataFrame(
        {
            "label": [entry.label for entry in dataset.classes],
            "class_name": names,
            "class_code": [entry.code for entry in dataset.classes],
            "sequences": sequences,
            "correct": correct,
            "accuracy": np.where(sequences > 0, correct / np.maximum(sequences, 1), np.nan),
            "taken_for": [names[row.argmax()] if row.any() else None for row in wrong],
        }
    )


def accuracy_interval(
    correct: pd.Series[Any], subject: pd.Series[Any], *, draws: int = 10_000, seed: int = 0
) -> Interval | str:
    """Return a 95 % confidence interval of an accuracy over people, or why there is none.

    People, not videos, are the independent units: one person's videos are right or wrong together.
    From `FEW_SUBJECTS` subjects on they are drawn with replacement (percentile bootstrap of the
    clusters; Davison, Hinkley, *Bootstrap Methods and their Application*, 1997, section 3.8).
    Fewer are too few to draw from: the interval is then that of a ratio of means over clusters with
    Student's t (Cochran, *Sampling Techniques*, 1977, section 6.4), which is wider.

    Parameters
    ----------
    correct
        Of each video, whether it was.
    subject
        Whose it is; where that is not known of any one, videos are the units.
    draws, seed
        Of the bootstrap.
    """
    known = bool(subject.notna().all())
    unit = "subject" if known else "video"
    groups = correct.astype(float).groupby(subject if known else np.arange(len(correct)))
    right, size = groups.sum().to_numpy(), groups.size().to_numpy()
    units = len(size)
    accuracy = right.sum() / size.sum()
    residual = right - accuracy * size
    if units < 2:
        return f"one {unit} alone tells nothing about others"
    if np.abs(residual).max() < 1e-9:
        return f"all {units} {unit}s have the same accuracy, whose spread tells nothing"
    if units < FEW_SUBJECTS:
        variance = units / (units - 1) * (residual**2).sum() / size.sum() ** 2
        half = stats.t.ppf(0.975, units - 1) * np.sqrt(variance)
        low, high = accuracy - half, accuracy + half
        method = f"Student's t over {units} {unit}s, too few to draw from; take it as a rough guide"
    else:
        rng = np.random.default_rng(seed)
        if (size == 1).all():  # videos: what is drawn is a number of right ones
            drawn = rng.binomial(units, accuracy, draws) / units
        else:
            times = rng.multinomial(units, np.full(units, 1 / units), draws)  # (draws, units)
            drawn = (times @ right) / (times @ size)
        low, high = np.quantile(drawn, [0.025, 0.975])
        method = f"bootstrap over {units} {unit}s"
    if not known:
        method += "; whose videos they are is not known, so it is too narrow if people recur"
    return Interval(
        low=float(max(low, 0.0)),
        high=float(min(high, 1.0)),
        method=method,
        units=units,
        unit=unit,
        reliable=known and units >= FEW_SUBJECTS,
    )

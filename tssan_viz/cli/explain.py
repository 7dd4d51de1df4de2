"""The command `tssan-viz explain`: how much each frame of a video counts, by several methods."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from tssan_viz.cli.common import DataOption, StoreOption, console, err_console
from tssan_viz.errors import UserError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from tssan_viz.cli.explained_run import ExplainedRun, Videos
    from tssan_viz.evidence.attributions import Attributions
    from tssan_viz.store import AttentionStore

TrainedRunOption = Annotated[
    Path,
    typer.Option("--run", help="A folder that `tssan-viz train` wrote.", show_default=False),
]
_BLOCKS = " ▁▂▃▄▅▆▇█"
_STRIP = 32
# What each person has to give is one by definition, so that they say nothing between persons.
_SHARED_OUT = ("received", "rollout", "flow")


def explain(
    run: TrainedRunOption,
    data: DataOption,
    sample: Annotated[
        str | None, typer.Argument(help="A video of the data set.", show_default=False)
    ] = None,
    class_name: Annotated[
        str | None,
        typer.Option(
            "--class", help="All test videos of a class instead of one.", show_default=False
        ),
    ] = None,
    method: Annotated[
        list[str] | None,
        typer.Option(
            "--method",
            help="received, rollout, flow, value-norm, relevance, attention-gradient, "
            "integrated-gradients or occlusion; may be given several times.",
            show_default="all",
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="Draw it: a .pdf, .svg or .png.", show_default=False),
    ] = None,
    store: StoreOption = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print JSON, and nothing else, to the standard output.")
    ] = False,
) -> None:
    """Say which frames of a video, or of a class's videos, count for the class, and which joints.

    Joints come with occlusion, which rests them one by one. Where a store holds the run's maps,
    they are kept there, and `tssan-viz view` lights the player's joints by them.

    What is asked about is the video's own class. Whether a method's answer can be believed is what
    `tssan-viz faithfulness` tests.

        tssan-viz explain a10_s2_t1 --run run --data utd -o explained.pdf

        tssan-viz explain --class "draw X" --run run --data utd --method received --method occlusion
    """
    from tssan_viz.cli.explained_run import open_explained, store_of
    from tssan_viz.evidence.attributions import METHODS, checked_methods
    from tssan_viz.figures.style import writable_figure

    if (sample is None) == (class_name is None):
        raise UserError("give either the name of a video or --class")
    methods = checked_methods(method or METHODS)
    target = None if out is None else writable_figure(out)
    opened = open_explained(run, data)
    where, _ = store_of(
        store, opened
    )  # a store that is named and not there is said before the work
    if class_name is not None:
        what, indices = opened.of_class(class_name)
    else:
        assert sample is not None
        indices = [opened.sample(sample)]
        what = sample
    explanation = explain_videos(opened, what, indices, methods)
    if where is not None and explanation.joints_of:
        _keep_joints(where, explanation)
    if target is not None:
        from tssan_viz.figures.style import save_figure

        save_figure(explanation.figure(), target)
        err_console.print(Text(f"drawn: {target}"), soft_wrap=True)
    if as_json:
        typer.echo(json.dumps(explanation.to_dict(), indent=2, ensure_ascii=False))
        return
    explanation.print()


def _keep_joints(store: AttentionStore, explanation: Explanation) -> None:
    """Keep the joints beside the run's maps; a store that cannot be written to is only told of."""
    from tssan_viz.evidence.kept import keep_joints

    opened = explanation.opened
    name = opened.trained.path.resolve().name
    label = int(opened.dataset.index["label"].iloc[explanation.indices[0]])
    try:
        keep_joints(store, name, label, explanation.joints_of)
        said = f"joints kept beside the maps of {name} in {store.url}"
    except UserError as error:
        said = f"joints not kept: {error}"
    err_console.print(Text(said), soft_wrap=True)


class Explanation:
    """What `explain` found: the mean over videos of every method's share of each frame.

    Attributes
    ----------
    what
        A sample or a class.
    shares : dict of (f,) ndarray
        Per method; the absolute values of one video sum to 1 before the mean is taken.
    persons : dict of (m, f) ndarray
        The part of each person in them, where a method tells persons apart.
    joints : (m, v) ndarray
        What the logit loses when one joint rests, mean over videos; None without occlusion.
    joints_of : dict of (m, v) list
        The same by sample, video by video.
    """

    def __init__(self, opened: ExplainedRun, what: str, indices: list[int]) -> None:
        self.opened, self.what, self.indices = opened, what, indices
        self.shares: dict[str, NDArray[np.floating]] = {}
        self.persons: dict[str, NDArray[np.floating]] = {}
        self.joints: NDArray[np.floating] | None = None
        self.joints_of: dict[str, list[list[float]]] = {}
        self.probability, self.correct, self.predicted = 0.0, 0, ""

    @property
    def seconds(self) -> NDArray[np.floating]:
        """The source seconds (f,) of the first video's frames."""
        frames = self.opened.videos(self.indices[:1]).clips.frames[0].flatten()
        seconds: NDArray[np.floating] = (frames / self.opened.dataset.fps).numpy()
        return seconds

    def lines(self) -> list[dict[str, Any]]:
        """Return per method where it peaks, and how much lies in a tenth of the frames."""
        import numpy as np

        seconds = self.seconds
        segments = self.opened.trained.recipe.clips.segments
        found = []
        for method, share in self.shares.items():
            positive = np.clip(share, 0, None)
            most = np.sort(positive)[::-1][: max(1, round(0.1 * len(share)))]
            found.append(
                {
                    "method": method,
                    "peak_seconds": float(seconds[int(np.argmax(share))]),
                    "peak_phase": float((np.argmax(share) + 0.5) / len(share)),
                    "top_tenth": float(most.sum() / (positive.sum() or 1.0)),
                    "frames": [float(value) for value in share],
                    "segments": share.reshape(segments, -1).sum(axis=1).tolist(),
                    "persons": self.persons[method].tolist() if method in self.persons else None,
                }
            )
        return found

    def named_joints(self, count: int = 5) -> list[tuple[str, float]]:
        """Return the joints that count most, of all persons together."""
        import numpy as np

        if self.joints is None:
            return []
        lost = self.joints.sum(axis=0)
        names = self.opened.dataset.topology.joints
        return [(names[int(v)], float(lost[v])) for v in np.argsort(-lost)[:count]]

    def to_dict(self) -> dict[str, Any]:
        """Return everything as plain values."""
        return {
            "what": self.what,
            "run": str(self.opened.trained.path),
            "videos": len(self.indices),
            "correct": self.correct,
            "probability": self.probability,
            "predicted": self.predicted,
            "seconds": [float(value) for value in self.seconds],
            "methods": self.lines(),
            "joints": [
                {"joint": name, "logit_lost": lost} for name, lost in self.named_joints(10_000)
            ],
        }

    def print(self) -> None:
        """Print strips, peaks, persons and joints."""
        import numpy as np

        label = self.opened.dataset.index["class_name"].iloc[self.indices[0]]
        many = len(self.indices) > 1
        console.print(Text(self.what, style="bold"))
        console.print(
            Text(
                (
                    f"{len(self.indices)} test videos, {self.correct} of them named rightly, "
                    if many
                    else f"class {label}; the network says {self.predicted}, "
                )
                + f"probability of {label} {self.probability:.2f}",
                style="dim",
            )
        )
        table = Table(box=None, padding=(0, 1, 0, 0), header_style="bold")
        table.add_column("method", no_wrap=True)
        table.add_column("from the first frame to the last", no_wrap=True)
        table.add_column("peak", justify="right", no_wrap=True)
        table.add_column("in top 10 %", justify="right", no_wrap=True)
        for line in self.lines():
            peak = f"{100 * line['peak_phase']:.0f} %" if many else f"{line['peak_seconds']:.1f} s"
            strip = strip_of(line["frames"])
            table.add_row(line["method"], strip, peak, f"{100 * line['top_tenth']:.0f} %")
        console.print(table)
        if len(self.opened.videos(self.indices[:1]).clips.present[0].any(dim=0).nonzero()) > 1:
            for method, persons in self.persons.items():
                if method in _SHARED_OUT:
                    continue
                parts = np.abs(persons).sum(axis=1)
                said = ", ".join(f"{100 * part:.0f} %" for part in parts / (parts.sum() or 1.0))
                console.print(Text(f"persons 1 to {len(parts)} by {method}: {said}"))
        joints = self.named_joints()
        if joints:
            said = ", ".join(f"{name} {lost:+.2f}" for name, lost in joints)
            console.print(Text(f"joints whose rest costs most of the logit: {said}"))
        if not many and self.indices[0] not in self.opened.part("test"):
            console.print(Text("not a test video: the network may have been trained on it"))
        folders = ("--run", str(self.opened.trained.path), "--data", str(self.opened.dataset.path))
        ask = ("tssan-viz", "faithfulness", "--class", str(label), *folders)
        console.print(
            Text(f"whether to believe it: {shlex.join(ask)}", style="dim"), soft_wrap=True
        )

    def figure(self) -> Any:
        """Draw the first video's poses shaded by the first method, and every method's line."""
        from tssan_viz.cli.record import poses_to_draw
        from tssan_viz.evidence.drawing import explanation_figure

        first = self.opened.videos(self.indices[:1])
        source = first.clips.frames[0].numpy()
        sequence = self.opened.dataset[self.indices[0]]
        poses = poses_to_draw(sequence, source, first.clips.position.shape[2])
        m = poses.shape[0]
        poses = poses.reshape(m, -1, *poses.shape[3:])
        there = first.clips.present[0].any(dim=0).numpy()
        many = ""
        if len(self.indices) > 1:
            many = f", mean of {len(self.indices)} videos, poses and seconds of {sequence.sample}"
        shaded_by = next(
            (one for one in ("occlusion", "relevance", "received") if one in self.shares),
            next(iter(self.shares)),
        )
        return explanation_figure(
            poses[there] if there.any() else poses[:1],
            [(int(a), int(b)) for a, b in self.opened.dataset.topology.bones],
            self.shares,
            self.seconds,
            title=f"{self.what}{many} · {self.opened.trained.path.resolve().name}",
            shaded_by=shaded_by,
            joints=None if self.joints is None else self.joints[: len(there)][there],
        )


def explain_videos(
    opened: ExplainedRun, what: str, indices: list[int], methods: tuple[str, ...]
) -> Explanation:
    """Explain some videos of one class by each method, and average."""
    import numpy as np
    from rich.progress import Progress

    from tssan_viz.evidence.attributions import attribute, occlusion_by_joint

    explanation = Explanation(opened, what, indices)
    totals: dict[str, Any] = {}
    places = opened.trained.recipe.clips.persons
    tells_persons = places > 1 and "m" in opened.explained.row_axes
    persons: dict[str, NDArray[np.floating]] = {}
    joints = np.zeros((places, len(opened.dataset.topology.joints)))
    with Progress(console=err_console, transient=True) as bar:
        task = bar.add_task("explaining", total=len(indices))
        for videos in opened.batches(indices, 16):
            found = attribute(
                opened.explained,
                videos.clips.position,
                videos.labels,
                methods=methods,
                extra=videos.extra,
                present=videos.clips.present,
            )
            for method in methods:
                shares, of_persons = _shares(found, method)
                totals[method] = totals.get(method, 0) + shares.sum(axis=0)
                if tells_persons and method != "occlusion":
                    whole = persons.setdefault(method, np.zeros((places, shares.shape[1])))
                    whole[: of_persons.shape[1]] += of_persons.sum(axis=0)
            if "occlusion" in methods:
                lost = occlusion_by_joint(
                    opened.explained.model, videos.clips.position, videos.labels, extra=videos.extra
                )
                joints[: lost.shape[1]] += lost.sum(dim=0).numpy()
                samples = opened.dataset.index["sample"].iloc[videos.indices]
                explanation.joints_of |= dict(zip(map(str, samples), lost.tolist(), strict=True))
            _count(explanation, found, videos)
            bar.advance(task, len(videos.indices))
    explanation.shares = {method: total / len(indices) for method, total in totals.items()}
    explanation.persons = {method: whole / len(indices) for method, whole in persons.items()}
    if "occlusion" in methods:
        explanation.joints = joints / len(indices)
    explanation.probability /= len(indices)
    return explanation


def _shares(found: Attributions, method: str) -> tuple[NDArray[np.floating], NDArray[np.floating]]:
    """Return (n, f) whose absolute values sum to 1 in each video, and persons' parts (n, m, f)."""
    import numpy as np

    frames = found.frames(method).flatten(1).double().numpy()
    persons = found.persons[method].movedim(2, 1).flatten(2).double().numpy()
    total = np.abs(frames).sum(axis=1, keepdims=True)
    total = np.where(total > 0, total, 1.0)
    return frames / total, persons / total[..., None]


def _count(explanation: Explanation, found: Attributions, videos: Videos) -> None:
    chance = found.logits.softmax(dim=1)
    predicted = chance.argmax(dim=1)
    explanation.correct += int((predicted == videos.labels).sum())
    explanation.probability += float(chance.gather(1, videos.labels[:, None]).sum())
    classes = explanation.opened.trained.classes
    if len(explanation.indices) == 1:
        explanation.predicted = classes[int(predicted[0])]


def strip_of(values: list[float], width: int = _STRIP) -> str:
    """Return a line of blocks as high as the values; what is negative is a dot."""
    import numpy as np

    parts = [
        float(np.mean(part)) for part in np.array_split(np.asarray(values), width) if len(part)
    ]
    most = max(max(parts), 1e-12)
    return "".join("·" if part < 0 else _BLOCKS[min(8, round(8 * part / most))] for part in parts)

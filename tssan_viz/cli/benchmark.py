"""The command `tssan-viz benchmark`: attributions scored where the answer is known."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from tssan_viz.cli.common import console, err_console, make_folder
from tssan_viz.errors import UserError

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray
    from tssan.dataset import SkeletonDataset
    from tssan.skeletons.synthetic.planted import Planted

    from tssan_viz.cli.explained_run import ExplainedRun

KNOWN_ANSWER = "known-answer"
SUBJECTS = 12  # the first half trains
VIDEOS = 48  # of each subject

_RECIPE: dict[str, Any] = {
    "name": "planted",
    "clips": {
        "frames": 32,
        "segments": 1,
        "persons": 1,
        "align": "none",
        "motion_scale": 10.0,
        "train_crop": [1.0, 1.0],
        "test_crop": 1.0,
        "min_crop_frames": 0,
    },
    "network": {
        # Frame by frame up to the attention, so that only attention carries news between frames.
        "encoder": "ff",
        "ff_dim": 32,
        "layers": 2,
        "heads": 4,
        "width": 32,
        "feed_forward": 2,
        "norm": "pre",
        "dropout": 0.0,
        "encoder_dropout": 0.0,
        "classifier_dropout": 0.0,
    },
    "training": {
        "epochs": 25,
        "batch_size": 32,
        "optimizer": "adamw",
        "learning_rate": 0.003,
        "weight_decay": 0.01,
        "schedule": "one_cycle",
        "clip_gradient": 1.0,
        "keep": "last",
    },
}


def benchmark(
    name: Annotated[
        str, typer.Argument(help="Which: known-answer is the only one.", show_default=False)
    ],
    out: Annotated[
        Path, typer.Option("--out", "-o", help="A folder; what it holds is not done again.")
    ] = Path("known-answer"),
    setting: Annotated[
        list[str] | None,
        typer.Option(
            "--setting",
            help="one moment, two moments, distractor or reversed; several times.",
            show_default="all",
        ),
    ] = None,
    seeds: Annotated[
        int, typer.Option("--seeds", min=1, help="Data sets and networks per setting.")
    ] = 5,
    epochs: Annotated[int, typer.Option("--epochs", min=1, help="Of each training.")] = 25,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print JSON, and nothing else, to the standard output.")
    ] = False,
) -> None:
    """Plant what carries the class, train on it, and score every attribution against the plant.

    Takes minutes on two cores, and goes on where it was interrupted.

        tssan-viz benchmark known-answer --seeds 1
    """
    from tssan.run_folder import Interrupted, write_text
    from tssan.skeletons.synthetic.planted import SETTINGS

    from tssan_viz.evidence.known_answers import is_valid, over_seeds

    if name != KNOWN_ANSWER:
        raise UserError(f"there is no benchmark {name!r}; there is {KNOWN_ANSWER}")
    settings = tuple(setting or SETTINGS)
    for one in settings:
        if one not in SETTINGS:
            raise UserError(f"--setting {one}: there are {', '.join(SETTINGS)}")
    make_folder(out)
    results = []
    try:
        for one in settings:
            for seed in range(seeds):
                err_console.print(f"{one}, seed {seed}", style="dim", highlight=False)
                results.append(known_answer(out, one, seed, epochs=epochs))
    except (Interrupted, KeyboardInterrupt):
        err_console.print("interrupted: the same command goes on where it stopped")
        raise typer.Exit(130) from None
    table = over_seeds(results)
    write_text(out / "known-answer.csv", table.to_csv(index=False))
    valid = is_valid(table, settings)
    if as_json:
        plain = json.loads(table.to_json(orient="records"))
        typer.echo(json.dumps({"valid": valid, "table": plain}, indent=2))
        return
    print_table(table, settings, valid, seeds)
    console.print(Text(f"table: {out / 'known-answer.csv'}", style="dim"), soft_wrap=True)


def known_answer(
    out: Path, setting: str, seed: int, *, epochs: int = 25, videos: int = VIDEOS
) -> dict[str, Any]:
    """Plant, train and score once, or read what was found before.

    Returns
    -------
    dict
        ``setting``, ``seed``, ``epochs``, ``accuracy``, and mean average precision over the test
        videos: ``frames`` and ``joints`` per method, ``heads`` per layer and head.

    Raises
    ------
    UserError
        What the folder holds was made with other settings.
    """
    from tssan.recipe import recipe_from_dict
    from tssan.run_folder import write_text
    from tssan.skeletons.synthetic.planted import planted
    from tssan.training import load_run, train

    folder = out / f"{setting.replace(' ', '-')}-{seed}"
    found = folder / "known-answer.json"
    made_with = {"setting": setting, "seed": seed, "epochs": epochs, "videos": videos}
    if found.is_file():
        result: dict[str, Any] = json.loads(found.read_text(encoding="utf-8"))
        if {key: result.get(key) for key in made_with} != made_with:
            raise UserError(
                f"{found} was made with {result.get('epochs')} epochs; name another --out, or "
                "remove it"
            )
        return result
    people = range(1, SUBJECTS + 1)
    plants = {
        one.sequence.sample: one for one in planted(setting, people, videos=videos, seed=seed)
    }
    dataset = _prepared(folder / "skeletons", plants)
    training = _RECIPE["training"] | {"epochs": epochs}
    recipe = recipe_from_dict(_RECIPE | {"training": training}, source=KNOWN_ANSWER)
    run = folder / "run"
    if (run / "results.json").is_file():
        trained = load_run(run)
        if trained.recipe.training.epochs != epochs:
            raise UserError(
                f"{run} was trained for {trained.recipe.training.epochs} epochs; name another "
                "--out, or remove it"
            )
    else:
        begun = (run / "recipe.yaml").exists()
        trained = train(recipe, dataset, run, seed=seed, resume=begun, progress=False)
    result = made_with | {"accuracy": trained.results["test_accuracy"]}
    result |= _scores(run, folder / "skeletons", plants, seed)
    write_text(found, json.dumps(result, indent=2) + "\n")
    return result


def _prepared(folder: Path, plants: dict[str, Planted]) -> SkeletonDataset:
    from tssan.dataset import SkeletonDataset, prepare
    from tssan.skeletons.protocols import first_half_trains
    from tssan.skeletons.synthetic.planted import planted_classes

    if (folder / "dataset.json").exists():
        return SkeletonDataset.open(folder)
    return prepare(
        (one.sequence for one in plants.values()),
        folder,
        name="planted",
        classes=planted_classes(),
        protocols=first_half_trains(range(1, SUBJECTS + 1)),
    )


def _scores(run: Path, data: Path, plants: dict[str, Planted], seed: int) -> dict[str, Any]:
    """Score every attribution of the test videos against the plant."""
    import numpy as np

    from tssan_viz.cli.explained_run import open_explained
    from tssan_viz.evidence.attributions import METHODS
    from tssan_viz.evidence.known_answers import RANDOM, average_precision, of_random_scores

    opened = open_explained(run, data)
    test = _asked(opened, opened.part("test"), plants)
    frames = {
        method: float(average_precision(test["frames"], test[method]).mean()) for method in METHODS
    }
    # The head is chosen where the score is not counted.
    train = _asked(opened, opened.part("train"), plants, heads_only=True)
    precision = {
        part: np.array(
            [
                [average_precision(one["frames"], head).mean() for head in np.moveaxis(call, 1, 0)]
                for call in np.moveaxis(one["heads"], 1, 0)
            ]
        )
        for part, one in (("train", train), ("test", test))
    }  # (call, h)
    best = np.unravel_index(int(precision["train"].argmax()), precision["train"].shape)
    frames["received, best head"] = float(precision["test"][best])
    frames[RANDOM] = float(of_random_scores(test["frames"], seed=seed).mean())
    joints = {
        method: float(average_precision(test["joints"], test[f"joints {method}"]).mean())
        for method in ("integrated-gradients", "occlusion")
    }
    joints[RANDOM] = float(of_random_scores(test["joints"], seed=seed).mean())
    return {
        "frames": frames,
        "joints": joints,
        "heads": precision["test"].tolist(),
        "best_head": [int(place) for place in best],
    }


def _asked(
    opened: ExplainedRun,
    indices: list[int],
    plants: dict[str, Planted],
    *,
    heads_only: bool = False,
) -> dict[str, NDArray[Any]]:
    """Return the plant and every attribution of some videos, (n, f) or (n, v) each."""
    import numpy as np

    from tssan_viz.evidence.attributions import (
        METHODS,
        attribute,
        integrated_gradients,
        occlusion_by_joint,
    )

    methods = () if heads_only else METHODS
    parts: dict[str, list[Any]] = {}
    for videos in opened.batches(indices, 64):
        position, labels, extra = videos.clips.position, videos.labels, videos.extra
        found = attribute(
            opened.explained,
            position,
            labels,
            methods=methods,
            extra=extra,
            present=videos.clips.present,
            heads=True,
        )
        samples = opened.dataset.index["sample"].iloc[videos.indices]
        source = videos.clips.frames.flatten(1).round().long().numpy()
        of_batch = {method: found.frames(method).flatten(1).numpy() for method in methods}
        of_batch["frames"] = np.stack(
            [plants[name].frames[line] for name, line in zip(samples, source, strict=True)]
        )
        of_batch["joints"] = np.stack([plants[name].joints for name in samples])
        assert found.heads is not None
        of_batch["heads"] = found.heads.flatten(3).numpy()
        if not heads_only:
            whole = integrated_gradients(opened.explained.model, position, labels, extra=extra)
            of_batch["joints integrated-gradients"] = whole.sum(dim=(1, 2, 3, 5)).numpy()
            lost = occlusion_by_joint(opened.explained.model, position, labels, extra=extra)
            of_batch["joints occlusion"] = lost.sum(dim=1).numpy()
        for name, values in of_batch.items():
            parts.setdefault(name, []).append(values)
    return {name: np.concatenate(values) for name, values in parts.items()}


def print_table(
    table: pd.DataFrame, settings: tuple[str, ...], valid: dict[str, bool], seeds: int
) -> None:
    """Print average precision per setting and method, and what is valid."""
    for setting in settings:
        lines = table[table["setting"] == setting]
        accuracy = lines["accuracy"].iloc[0]
        console.print()
        console.print(
            Text.assemble((setting, "bold"), (f"   accuracy {accuracy:.3f}, {seeds} seeds", "dim"))
        )
        shown = Table(box=None, padding=(0, 1, 0, 0), header_style="bold")
        for title in ("", "of", "method"):
            shown.add_column(title, no_wrap=True)
        for title in ("average precision", "low", "high"):
            shown.add_column(title, justify="right", no_wrap=True)
        ordered = lines.sort_values(["of", "precision"], ascending=[True, False])
        for line in ordered.to_dict(orient="records"):
            shown.add_row(
                "*" if line["beats_random"] else "",
                line["of"],
                line["method"],
                *(
                    "—" if line[key] != line[key] else f"{line[key]:.3f}"
                    for key in ("precision", "low", "high")
                ),
                style="dim" if line["method"] == "random" else None,
            )
        console.print(shown)
        if not valid[setting]:
            console.print(
                Text(
                    "not valid: neither integrated gradients nor occlusion is clear of random over "
                    "at least 5 seeds, so that nothing follows for attention"
                )
            )
    console.print()
    console.print(Text("* its interval over seeds lies above that of random scores", style="dim"))

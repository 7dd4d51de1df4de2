"""What recording costs, as a ratio within one run, beside what others cost.

    python benchmarks/recorder.py [demo] [ts-san-v2] [bert] [--mode training] [--pairs 30]

Each way of recording is timed in pairs with the same model unwatched, in turns, the order changing
from pair to pair; one turn is several steps. The table shows the median of the pairs' ratios with a
95 % bootstrap interval; its upper end is what counts against the bars. A turn of `store` ends when
everything that it recorded is in the store and fsynced, so that nothing is left over for the turn
of the unwatched model; `store, no wait` ends with the last step, as a training loop would. "CPU" is
the ratio of processor time, all threads together, which other work on the machine disturbs less.

alone           the model, unwatched
asleep          the recorder attached, and paused
store           every map of every layer and head into a store on the disk
hook            a forward hook that computes the softmax, casts to float16 and calls .cpu()
attentions      transformers' output_attentions=True, which needs eager attention, and .cpu()
torchlens       tl.trace, saving the softmaxes alone, on a model that spells attention out
nnsight         a trace that saves queries and keys (TS-SAN) or the softmax (BERT, eager)
"""

from __future__ import annotations

import argparse
import copy
import json
import os
import platform
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from tssan_viz.recording import record

Step = Callable[[], object]
BARS = {
    ("demo", "training", "store"): 1.15,
    ("demo", "inference", "store"): 1.5,
    ("demo", "training", "asleep"): 1.02,
    ("demo", "inference", "asleep"): 1.02,
}
TIMES_LESS_THAN_TORCHLENS = 5


@dataclass
class Subject:
    """A model, how it is called, and how large a turn is."""

    name: str
    model: nn.Module
    explicit: nn.Module
    arguments: tuple[Any, ...]
    keywords: dict[str, Any]
    samples: int
    axes: dict[str, Any]
    steps: int
    what: str

    def call(self, model: nn.Module, **more: Any) -> Any:
        """Call a model of this kind."""
        return model(*self.arguments, **self.keywords, **more)


def ts_san(name: str, recipe: str, n: int, steps: int) -> Subject:
    from tssan.network import build_network
    from tssan.recipe import load_recipe

    chosen = load_recipe(recipe)
    clips = chosen.clips
    shape = (n, clips.segments, clips.persons, clips.frames)
    torch.manual_seed(0)
    fused, explicit = (
        build_network(chosen, joints=25, coordinates=3, classes=60, fused=fused)
        for fused in (True, False)
    )
    explicit.load_state_dict(fused.state_dict())
    position = torch.randn(*shape, 25, 3)
    present = torch.ones(shape[:3], dtype=torch.bool)
    return Subject(
        name,
        fused,
        explicit,
        (position, position.roll(1, 3), present),
        {},
        n,
        {"axes": ("n", "k", "m"), "present": present},
        steps,
        f"{n} videos × {shape[1]} segments × {shape[2]} persons × {shape[3]} frames, "
        f"{chosen.network.layers} layers",
    )


def bert(n: int, steps: int) -> Subject:
    from transformers import BertConfig, BertModel

    torch.manual_seed(0)
    fused = BertModel(BertConfig(), add_pooling_layer=False)
    explicit = BertModel(BertConfig(attn_implementation="eager"), add_pooling_layer=False)
    explicit.load_state_dict(fused.state_dict())
    tokens = torch.randint(0, 30_000, (n, 128))
    what = f"BERT-base, {n} × 128 tokens, 12 layers"
    return Subject("bert", fused, explicit, (), {"input_ids": tokens}, n, {}, steps, what)


def one_number(output: Any) -> Tensor:
    output = output if isinstance(output, Tensor) else output.last_hidden_state
    return output.float().logsumexp(-1).mean()


def step_of(subject: Subject, model: nn.Module, training: bool, **more: Any) -> Step:
    def infer() -> Any:
        with torch.inference_mode():
            return subject.call(model, **more)

    def train() -> Any:
        output = subject.call(model, **more)
        one_number(output).backward()
        model.zero_grad(set_to_none=True)
        return output

    return train if training else infer


# The ways of recording; each yields one step, and what ends a turn. ------------------------------


@contextmanager
def nothing_recorded(subject: Subject, training: bool) -> Iterator[tuple[Step, Step]]:
    model = copy.deepcopy(subject.model).train(training)
    yield step_of(subject, model, training), lambda: None


@contextmanager
def asleep(subject: Subject, training: bool) -> Iterator[tuple[Step, Step]]:
    model = copy.deepcopy(subject.model).train(training)
    with tempfile.TemporaryDirectory() as folder, record(model, folder, run="r") as recorder:
        recorder.pause()
        yield step_of(subject, model, training), lambda: None


@contextmanager
def into_a_store(
    subject: Subject, training: bool, *, wait: bool = True
) -> Iterator[tuple[Step, Step]]:
    model = copy.deepcopy(subject.model).train(training)
    names = [f"video {i}" for i in range(subject.samples)]
    step = step_of(subject, model, training)
    number = 0
    with tempfile.TemporaryDirectory() as folder, record(model, folder, run="r") as recorder:

        def announced() -> None:
            nonlocal number
            number += 1
            recorder.samples(sample=names, step=number, **subject.axes)
            step()

        yield announced, recorder.flush if wait else (lambda: None)
    report = recorder.report()
    assert report.maps_recorded == report.maps_due == number * report.sites
    assert report.rows_acknowledged == report.rows


@contextmanager
def without_waiting(subject: Subject, training: bool) -> Iterator[tuple[Step, Step]]:
    with into_a_store(subject, training, wait=False) as ways:
        yield ways


@contextmanager
def a_plain_hook(subject: Subject, training: bool) -> Iterator[tuple[Step, Step]]:
    kept: list[Tensor] = []

    def probabilities(module: nn.Module, args: tuple[Tensor, ...], output: Any) -> None:
        with torch.no_grad():
            scores = args[0] @ args[1].transpose(-2, -1) * args[0].shape[-1] ** -0.5
            kept.append(scores.softmax(-1).half().cpu())

    def weights(module: nn.Module, args: tuple[Tensor, ...], output: Any) -> None:
        kept.append(output[1].detach().half().cpu())

    if subject.name == "bert":
        model, hook, ending = copy.deepcopy(subject.explicit), weights, "attention.self"
    else:
        model, hook, ending = copy.deepcopy(subject.model), probabilities, "attend"
    model.train(training)
    handles = [
        module.register_forward_hook(hook)
        for name, module in model.named_modules()
        if name.endswith(ending)
    ]
    step = step_of(subject, model, training)

    def hooked() -> None:
        step()
        assert len(kept) == len(handles)
        kept.clear()

    yield hooked, lambda: None


@contextmanager
def output_attentions(subject: Subject, training: bool) -> Iterator[tuple[Step, Step]]:
    model = copy.deepcopy(subject.explicit).train(training)
    step = step_of(subject, model, training, output_attentions=True)
    yield lambda: [a.detach().half().cpu() for a in step().attentions], lambda: None


@contextmanager
def torchlens(subject: Subject, training: bool) -> Iterator[tuple[Step, Step]]:
    import torchlens as tl

    model = copy.deepcopy(subject.explicit).train(training)

    def traced() -> None:
        with torch.no_grad():
            tl.trace(
                model,
                subject.arguments or subject.keywords["input_ids"],
                save=lambda call: getattr(call, "func_name", None) == "softmax",
            )

    yield traced, lambda: None


@contextmanager
def nnsight(subject: Subject, training: bool) -> Iterator[tuple[Step, Step]]:
    from nnsight import NNsight

    model = NNsight(copy.deepcopy(subject.model).train(training))
    layers = model.encoder.layer if subject.name == "bert" else model.block.layers

    def traced() -> None:
        with torch.no_grad(), model.trace(*subject.arguments, **subject.keywords):
            for layer in layers:
                if subject.name == "bert":
                    layer.attention.self.query.output.save()
                    layer.attention.self.key.output.save()
                else:
                    layer.attention.attend.inputs.save()

    yield traced, lambda: None


WAYS: dict[str, Callable[[Subject, bool], Any]] = {
    "asleep": asleep,
    "store": into_a_store,
    "store, no wait": without_waiting,
    "hook": a_plain_hook,
    "attentions": output_attentions,
    "torchlens": torchlens,
    "nnsight": nnsight,
}
INFERENCE_ALONE = ("torchlens", "nnsight")
# What says little more than another does is timed when it is asked for.
WHEN_ASKED = ("store, no wait",)


# Timing ------------------------------------------------------------------------------------------


@dataclass
class Ratio:
    """A way's cost as a multiple of the unwatched model's."""

    model: str
    mode: str
    way: str
    milliseconds_alone: float
    median: float
    low: float
    high: float
    of_processor_time: float
    pairs: int


def turn(ways: tuple[Step, Step], steps: int) -> np.ndarray:
    """Seconds of a step: on the wall, and of all of this process's threads."""
    step, end = ways
    wall, busy = time.perf_counter(), time.process_time()
    for _ in range(steps):
        step()
    end()
    return np.array([time.perf_counter() - wall, time.process_time() - busy]) / steps


def compare(subject: Subject, mode: str, way: str, pairs: int, steps: int) -> Ratio:
    training = mode == "training"
    ratios, alone_times = [], []
    with ExitStack() as stack:
        alone = stack.enter_context(nothing_recorded(subject, training))
        watched = stack.enter_context(WAYS[way](subject, training))
        turn(alone, 1), turn(watched, 1)
        for pair in range(pairs):
            first, second = (alone, watched) if pair % 2 else (watched, alone)
            times = {id(ways): turn(ways, steps) for ways in (first, second)}
            ratios.append(times[id(watched)] / times[id(alone)])
            alone_times.append(times[id(alone)][0])
    on_the_wall, busy = np.array(ratios).T
    draws = np.random.default_rng(0).choice(on_the_wall, (10_000, pairs))
    low, high = np.quantile(np.median(draws, axis=1), [0.025, 0.975])
    milliseconds = float(np.median(alone_times)) * 1000
    return Ratio(
        subject.name,
        mode,
        way,
        milliseconds,
        float(np.median(on_the_wall)),
        float(low),
        float(high),
        float(np.median(busy)),
        pairs,
    )


def verdict(ratio: Ratio, found: dict[tuple[str, str, str], Ratio]) -> str:
    bar = BARS.get((ratio.model, ratio.mode, ratio.way))
    if bar is not None:
        return f"{'met' if ratio.high <= bar else 'MISSED'}: ≤ {bar}"
    if ratio.way == "torchlens":
        own = found.get((ratio.model, ratio.mode, "store"))
        if own is not None:
            times = (ratio.low - 1) / max(own.high - 1, 1e-3)
            word = "met" if times >= TIMES_LESS_THAN_TORCHLENS else "MISSED"
            return f"{word}: {times:.0f} × the store's overhead, ≥ {TIMES_LESS_THAN_TORCHLENS}"
    return ""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", nargs="*", help="demo, ts-san-v2, bert; all of them by default")
    parser.add_argument("--mode", choices=["training", "inference"], help="default: both")
    parser.add_argument(
        "--way", action="append", choices=list(WAYS), help="default: all but no wait"
    )
    parser.add_argument("--pairs", type=int, default=30)
    parser.add_argument("--steps", type=int, help="in a turn; default: by model")
    parser.add_argument("--json", type=Path, help="write the numbers there too")
    options = parser.parse_args()
    warnings.filterwarnings("ignore")

    makers: dict[str, Callable[[], Subject]] = {
        "demo": lambda: ts_san("demo", "demo", n=16, steps=4),
        "ts-san-v2": lambda: ts_san("ts-san-v2", "t1_ts-san-v2", n=2, steps=1),
        "bert": lambda: bert(n=1, steps=1),
    }
    found: dict[tuple[str, str, str], Ratio] = {}
    table = Table(
        title=f"{torch.get_num_threads()} threads, {os.cpu_count()} cores, load before "
        f"{os.getloadavg()[0]:.1f}, torch {torch.__version__}, {platform.machine()}"
    )
    for column in ("model", "step", "alone, ms", "way", "ratio", "95 % interval", "CPU", "bar"):
        table.add_column(column)
    for name in options.models or makers:
        subject = makers[name]()
        table.caption = f"{table.caption or ''}{name}: {subject.what}. "
        for mode in [options.mode] if options.mode else ["training", "inference"]:
            for way in options.way or [way for way in WAYS if way not in WHEN_ASKED]:
                if (way == "attentions" and name != "bert") or (
                    mode == "training" and way in INFERENCE_ALONE
                ):
                    continue
                steps = options.steps or subject.steps
                # What traces operation by operation takes so long that one step is a turn.
                ratio = compare(
                    subject, mode, way, options.pairs, 1 if way in INFERENCE_ALONE else steps
                )
                found[name, mode, way] = ratio
                table.add_row(
                    name,
                    mode,
                    f"{ratio.milliseconds_alone:.1f}",
                    way,
                    f"{ratio.median:.3f}",
                    f"{ratio.low:.3f} – {ratio.high:.3f}",
                    f"{ratio.of_processor_time:.3f}",
                    verdict(ratio, found),
                )
    Console(width=140).print(table)
    if options.json:
        options.json.write_text(json.dumps([asdict(ratio) for ratio in found.values()], indent=1))


if __name__ == "__main__":
    main()

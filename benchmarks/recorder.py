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
nnsight         a trace that saves queries and keys

    python benchmarks/recorder.py --device cuda [--pairs 30]

prints what is asked of the recorder on a GPU, for TS-SAN-V2 at full width, 64 videos of 3 segments,
bf16, compiled and not: the ratio of a training step that records everything into host memory, and
of an epoch with a probe set at its end; whether anything in a watched step made the host wait for
the device (`torch.cuda.set_sync_debug_mode` and the profiler's calls of the CUDA runtime); and the
device memory that the recorder takes beside the model's, against the size of a batch of maps.
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
from torch.profiler import ProfilerActivity, profile

from tssan_viz.recording import Probe, record

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
    from tssan.building import build_network
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
    median, low, high = interval(on_the_wall)
    milliseconds = float(np.median(alone_times)) * 1000
    return Ratio(
        subject.name,
        mode,
        way,
        milliseconds,
        median,
        low,
        high,
        float(np.median(busy)),
        pairs,
    )


def interval(ratios: np.ndarray) -> tuple[float, float, float]:
    """Return the median and its 95 % bootstrap interval."""
    draws = np.random.default_rng(0).choice(ratios, (10_000, len(ratios)))
    low, high = np.quantile(np.median(draws, axis=1), [0.025, 0.975])
    return float(np.median(ratios)), float(low), float(high)


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


# On a GPU ----------------------------------------------------------------------------------------

GPU_BARS = {"memory": 1.05, "probe": 1.02}
WAITS = ("cudaStreamSynchronize", "cudaDeviceSynchronize", "cudaMemcpy", "aten::item")
STEPS_OF_AN_EPOCH = 100


@dataclass
class OnDevice:
    """A model on a device, the step that trains it, and what it is trained with."""

    device: torch.device
    model: nn.Module
    step: Step
    arguments: tuple[Tensor, ...]
    axes: dict[str, Any]
    names: list[str]

    def finish(self) -> None:
        """Wait until the device has done what it was told."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)


def on_device(device: torch.device, videos: int, *, compiled: bool) -> OnDevice:
    subject = ts_san("ts-san-v2", "t1_ts-san-v2", n=videos, steps=1)
    model = subject.model.to(device).train()
    arguments = tuple(argument.to(device) for argument in subject.arguments)
    called = torch.compile(model) if compiled else model

    def step() -> None:
        with torch.autocast(device.type, torch.bfloat16):
            output = called(*arguments)
        one_number(output).backward()
        model.zero_grad(set_to_none=True)

    present = {"axes": ("n", "k", "m"), "present": arguments[2]}
    names = [f"video {i}" for i in range(videos)]
    return OnDevice(device, called, step, arguments, present, names)


def ratios_on_device(at: OnDevice, way: str, pairs: int, steps: int) -> np.ndarray:
    """Return the ratio of each pair of turns; the recorder sleeps in those that do without it."""
    recorder = record(at.model, run="r")
    probe = Probe([({"sample": at.names, **at.axes}, at.arguments)])
    number = 0

    def alone() -> None:
        for _ in range(steps):
            at.step()

    def watched() -> None:
        nonlocal number
        for _ in range(steps):
            number += 1
            if way == "memory":
                recorder.samples(sample=at.names, step=number, **at.axes)
            at.step()
        if way == "probe":
            recorder.probe(probe, step=number)
        recorder.flush()

    def seconds(turn: Step, *, recording: bool) -> float:
        if recording and way == "memory":
            recorder.resume()
        else:
            recorder.pause()
        at.finish()
        began = time.perf_counter()
        turn()
        at.finish()
        taken = time.perf_counter() - began
        recorder.sink.blocks.clear()  # type: ignore[attr-defined]
        return taken

    found = []
    with recorder:
        seconds(alone, recording=False), seconds(watched, recording=True)
        for pair in range(pairs):
            order = (False, True) if pair % 2 else (True, False)
            taken = {r: seconds(watched if r else alone, recording=r) for r in order}
            found.append(taken[True] / taken[False])
    return np.array(found)


def waits_and_memory(at: OnDevice) -> tuple[dict[str, int], int, int]:
    """Return how often a watched step waits more often than one alone, by call; bytes; of maps."""
    counts: dict[bool, dict[str, int]] = {}
    peaks: dict[bool, int] = {}
    recorder = record(at.model, run="r")
    with recorder:
        for watched in (False, True, False, True):  # the first of each warms up
            if not watched:
                recorder.pause()
            else:
                recorder.resume()
                recorder.samples(sample=at.names, step=len(counts), **at.axes)
            at.finish()
            torch.cuda.reset_peak_memory_stats(at.device)
            begun = torch.cuda.memory_allocated(at.device)
            with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as profiled:
                torch.cuda.set_sync_debug_mode("error" if watched in counts else "default")
                try:
                    at.step()
                finally:
                    torch.cuda.set_sync_debug_mode("default")
            at.finish()
            peaks[watched] = torch.cuda.max_memory_allocated(at.device) - begun
            calls = {event.key: event.count for event in profiled.key_averages()}
            counts[watched] = {name: calls.get(name, 0) for name in WAITS}
            if watched:
                recorder.flush()
        bytes_of_maps = recorder.report().bytes // 2
    more = {name: counts[True][name] - counts[False][name] for name in WAITS}
    return more, peaks[True] - peaks[False], bytes_of_maps


def on_a_gpu(pairs: int, videos: int = 64, steps: int = 10) -> None:
    if not torch.cuda.is_available():
        raise SystemExit("PyTorch sees no GPU here; --device cuda needs one")
    device = torch.device("cuda", torch.cuda.current_device())
    table = Table(title=f"{torch.cuda.get_device_name(device)}, torch {torch.__version__}")
    for column in ("step", "what", "found", "95 % interval", "bar"):
        table.add_column(column)
    for compiled in (False, True):
        at = on_device(device, videos, compiled=compiled)
        name = "compiled" if compiled else "eager"
        for way, many in (("memory", steps), ("probe", STEPS_OF_AN_EPOCH)):
            median, low, high = interval(ratios_on_device(at, way, pairs, many))
            met = "met" if high <= GPU_BARS[way] else "MISSED"
            what = "all into host memory" if way == "memory" else f"a probe every {many} steps"
            row = (f"{median:.3f}", f"{low:.3f} – {high:.3f}", f"{met}: ≤ {GPU_BARS[way]}")
            table.add_row(name, what, *row)
        more, taken, maps = waits_and_memory(at)
        said = ", ".join(f"{count} × {call}" for call, count in more.items() if count) or "none"
        table.add_row(
            name, "waits more than alone", said, "", "met" if said == "none" else "MISSED"
        )
        met = "met" if taken <= maps else "MISSED"
        found = f"{taken / 2**20:.1f} MB more"
        table.add_row(name, "device memory", found, "", f"{met}: ≤ {maps / 2**20:.1f} MB of maps")
    Console(width=140).print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", nargs="*", help="demo, ts-san-v2, bert; all of them by default")
    parser.add_argument("--mode", choices=["training", "inference"], help="default: both")
    parser.add_argument(
        "--way", action="append", choices=list(WAYS), help="default: all but no wait"
    )
    parser.add_argument("--pairs", type=int, default=30)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--steps", type=int, help="in a turn; default: by model")
    parser.add_argument("--json", type=Path, help="write the numbers there too")
    options = parser.parse_args()
    warnings.filterwarnings("ignore")
    if options.device == "cuda":
        on_a_gpu(options.pairs)
        return

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

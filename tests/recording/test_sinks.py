"""Where maps go: memory without Lance, a store with any metadata, functions and sinks of others."""

from __future__ import annotations

import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from torch import nn

from tests.recording.support import CATALOGUE, Model, watch_calls
from tssan_viz.comparison import compare_class
from tssan_viz.errors import UserError
from tssan_viz.recording import Probe, RecordingError, Sink, UnrecordableModel, record
from tssan_viz.recording.following import Following
from tssan_viz.recording.sinks import StoreSink
from tssan_viz.store import open_store
from tssan_viz.store.sql import query
from tssan_viz.store.verification import verify


def test_memory_needs_neither_lance_nor_duckdb_nor_arrow():
    code = """
import sys, torch
from torch import nn
import tssan_viz
model = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
with tssan_viz.record(model, unlabelled=True) as recorder:
    model(torch.randn(3, 5, 8))
heavy = [name for name in ("pyarrow", "pandas", "xarray") if name in sys.modules]
maps = recorder.maps()  # xarray loads pandas, and pandas loads Arrow where it is there
assert maps.shape == (3, 1, 2, 5, 5), maps.shape
assert recorder.report().rows_acknowledged == 3
print(heavy + [name for name in ("lance", "duckdb", "tssan", "lightning", "transformers")
               if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_memory_returns_the_maps_with_all_that_was_said():
    torch.manual_seed(0)
    model = Model()
    explicit = watch_calls(model)
    with record(model, only="*.1.*", heads=[2]) as recorder:
        for call in range(2):
            recorder.samples(
                sample=[f"{call}a", f"{call}b"],
                label=[0, 1],
                axes=("n", "k"),
                sizes={"k": 2},
                mood=["calm", "wild"],
                height=torch.tensor([1.5, 2.5]),
            )
            model(torch.randn(2, 2, 6, 8))
        halfway = recorder.maps()
    maps = recorder.maps()
    assert maps.identical(halfway)
    assert maps.sizes == {"row": 8, "layer": 1, "head": 1, "query": 6, "key": 6}
    assert maps.layer.item() == 2
    assert maps["site"].item() == "layers.1.attend"
    assert maps["head"].item() == 2
    expected = torch.cat(explicit["layers.1.attend"])[:, 1].numpy()
    assert np.abs(maps.sel(layer=2, head=2).to_numpy() - expected).max() <= 2.5e-4
    wild = maps[maps["mood"].to_numpy() == "wild"]
    assert wild["height"].to_numpy().tolist() == [2.5] * 4
    assert wild["sample"].to_numpy().tolist() == ["0b", "0b", "1b", "1b"]


def test_a_store_keeps_metadata_of_any_name_and_says_which_heads(tmp_path):
    model = Model(heads=4)
    with record(model, tmp_path / "s", run="r", heads={"*.0.*": [1, 3], "*.1.*": [4, 2]}) as r:
        r.samples(sample=["a", "b"], mood=["calm", None], weight=[1.5, 2.0])
        model(torch.randn(2, 6, 8))
    store = open_store(tmp_path / "s")
    rows = store.rows("r").set_index("sample")
    assert rows.loc["a", "mood"] == "calm"
    assert rows["weight"].tolist() == [1.5, 2.0]
    assert store.sites("r")["numbers"].tolist() == [(1, 3), (4, 2)]
    assert store.select(run="r", layer=1).maps()["head"].to_numpy().tolist() == [1, 3]
    with pytest.raises(UserError, match="layer 1 has heads 1, 3, and head 2 was asked for"):
        store.select(run="r").maps()
    provenance = store.sites("r")["provenance"].tolist()
    assert [text.rpartition("; ")[2] for text in provenance] == [
        "heads 1, 3 of 4",
        "heads 4, 2 of 4",
    ]


def test_a_head_or_a_site_that_is_not_there_is_named():
    with pytest.raises(RecordingError, match=r"layers\.0\.attend has heads 1 to 2.*\[3\]"):
        record_all(Model(), heads=[3])
    with pytest.raises(UnrecordableModel):
        record_all(Model(), only="decoder.*")


def record_all(model, store=None, **options):
    with record(model, store, unlabelled=True, **options) as recorder:
        model(torch.randn(2, 6, 8))
    return recorder


def test_a_function_gets_every_block():
    seen = []
    recorder = record_all(Model(), lambda sites, block: seen.append((sites, block)))
    ((sites, block),) = seen
    assert [site.name for site in sites] == ["layers.0.attend", "layers.1.attend"]
    assert block.count == 2
    assert block.maps["layers.0.attend"].dtype == np.float16
    assert block.measures["entropy"]["layers.1.attend"].shape == (2, 2)
    assert block.rows["sample"] == ["call 1 row 1", "call 1 row 2"]
    with pytest.raises(RecordingError, match="ask the store"):
        recorder.maps()


def test_a_sink_of_three_calls():
    class Mine:
        def __init__(self):
            self.calls = []

        def begin(self, sites, info):
            self.calls.append(("begin", len(sites), info))

        def write(self, block):
            self.calls.append(("write", block.count))

        def end(self, error):
            self.calls.append(("end", error))

    sink = Mine()
    assert isinstance(sink, Sink)
    record_all(Model(), sink, info={"seed": 1})
    assert sink.calls == [("begin", 2, {"seed": 1}), ("write", 2), ("end", None)]
    with pytest.raises(RecordingError, match="recorded into a int"):
        record(Model(), 3)


class Translator(nn.Module):
    """Encoder and decoder: sites whose maps differ in size."""

    def __init__(self):
        super().__init__()
        self.transformer = nn.Transformer(
            8, 2, num_encoder_layers=1, num_decoder_layers=1, dim_feedforward=16, batch_first=True
        )

    def forward(self, source, target):
        return self.transformer(source, target)


def test_rows_that_were_there_are_counted_and_those_of_nameless_calls_are_not_mixed_up(tmp_path):
    model = Model()
    for written in (2, 3):
        with record(model, tmp_path / "s") as recorder:
            for i in range(written):
                recorder.samples(sample=[f"{i}"])
                model(torch.randn(1, 6, 8))
    report = recorder.report()
    assert (report.rows, report.rows_skipped, report.rows_acknowledged) == (3, 2, 3)
    assert "3 (2 there already, not written again)" in str(report)

    record_all(model, tmp_path / "s", run="nameless")
    with pytest.raises(RecordingError, match=r"'call 1 row 1' in the run already.*give run="):
        record_all(model, tmp_path / "s", run="nameless")


def test_what_the_store_remembers_counts_what_was_still_to_be_written(tmp_path):
    class Late(StoreSink):
        def write(self, block):
            time.sleep(0.05)
            super().write(block)

    sink = Late(tmp_path / "s", "r", None)
    with record(Model(), sink) as recorder:
        for i in range(5):
            recorder.samples(sample=[f"{i} a", f"{i} b"], present=np.array([True, False]))
            recorder.model(torch.randn(2, 6, 8))
    assert sink.report["absent"] == recorder.report().absent == 5


def test_a_sink_that_may_try_again_loses_nothing():
    class FullForAWhile:
        def __init__(self):
            self.rows = []

        def begin(self, sites, info):
            pass

        def write(self, block):
            self.rows += block.rows["sample"]
            if len(self.rows) == 1:
                error = OSError("the disk is full")
                error.may_retry = True
                raise error

        def end(self, error):
            pass

    sink, model = FullForAWhile(), Model()
    with record(model, sink) as recorder:
        recorder.samples(sample=["a"])
        model(torch.randn(1, 6, 8))
        with pytest.raises(OSError, match="the disk is full"):
            recorder.flush()
        recorder.samples(sample=["b"])
        model(torch.randn(1, 6, 8))
    report = recorder.report()
    assert sink.rows == ["a", "b"]
    assert (report.rows, report.rows_lost, report.maps_recorded, report.maps_due) == (2, 0, 4, 4)


def test_sites_of_different_sizes_are_kept_side_by_side(tmp_path):
    torch.manual_seed(0)
    model = Translator().eval()
    source, target = torch.randn(3, 7, 8), torch.randn(3, 4, 8)
    with record(model) as memory:
        memory.samples(sample=["a", "b", "c"])
        model(source, target)
    sizes = {site.stream: (site.query, site.key) for site in memory.sites}
    assert sizes == {"encoder": (7, 7), "decoder": (4, 4), "cross": (4, 7)}
    assert memory.maps(stream="cross").shape == (3, 1, 2, 4, 7)
    with pytest.raises(RecordingError, match="several streams"):
        memory.maps()
    with pytest.raises(RecordingError, match="no site is called"):
        memory.maps(site="nothing")

    with record(model, tmp_path / "s", run="r") as recorder:
        recorder.samples(sample=["a", "b", "c"])
        model(source, target)
    for stream in sizes:
        stored = open_store(tmp_path / "s").select(run="r", stream=stream).maps().to_numpy()
        assert np.array_equal(stored, memory.maps(stream=stream).to_numpy())


def test_asking_too_early_is_refused():
    with record(Model()) as recorder, pytest.raises(RecordingError, match="nothing was recorded"):
        recorder.maps()


def test_the_report_is_for_people():
    model = Model()
    with record(model, run="mine", catalogue=CATALOGUE) as recorder:
        recorder.samples(sample=["a"], axes=("n", "m"), present=torch.tensor([[True, False]]))
        model(torch.randn(1, 2, 6, 8))
    text = str(recorder.report())
    assert "recording of mine" in text
    assert "2 of 2 due, 288 B" in text
    assert "1, and 1 of nobody" in text
    assert "compute" in text
    assert recorder.report().seconds_spent > 0


def test_chosen_heads_keep_their_numbers_wherever_they_are_asked_for(tmp_path):
    torch.manual_seed(0)
    model, clips = Model(heads=4), torch.randn(3, 6, 8)
    said = {"sample": ["a", "b", "c"], "label": [0, 1, 0], "class_name": ["x", "y", "x"]}
    for folder, heads in (("all", None), ("some", [2, 4])):
        with record(model, tmp_path / folder, run="r", heads=heads) as recorder:
            recorder.samples(**said)
            model(clips)
    whole, part = open_store(tmp_path / "all").select(), open_store(tmp_path / "some").select()
    assert part.heads == (2, 4)
    assert "heads 2, 4" in str(part)
    assert part.maps()["head"].to_numpy().tolist() == [2, 4]
    np.testing.assert_allclose(part.maps(), whole.select(head=[2, 4]).maps(), atol=5e-4)
    means = part.mean("label").sel(head=4), whole.mean("label").sel(head=4)
    np.testing.assert_allclose(*means, atol=5e-4)
    measures = whole.measures()
    entropy = measures[measures["head"].isin([2, 4])]["entropy"]
    np.testing.assert_allclose(part.measures()["entropy"], entropy, rtol=1e-5)
    with pytest.raises(UserError, match="no head 3; there is 2, 4"):
        part.select(head=3)
    asked = query(part.store, "select distinct head from maps order by head")
    assert asked["head"].to_pylist() == [2, 4]
    assert verify(part.store).damaged == []


def test_chosen_heads_go_on_with_the_same_and_refuse_others(tmp_path):
    model = Model(heads=4)

    def once(name, heads):
        with record(model, tmp_path / "s", run="r", heads=heads) as recorder:
            recorder.samples(sample=[name])
            model(torch.randn(1, 6, 8))

    once("a", [2, 4])
    once("b", [2, 4])
    assert len(open_store(tmp_path / "s").rows("r")) == 2
    with pytest.raises(UserError, match=r"other sites: layers\.0\.attend \(heads 2, 4, 6 × 6"):
        once("c", [1, 2])


def test_logged_heads_have_their_own_numbers():
    model, logged = Model(heads=4), {}
    following = Following(
        record(model, heads=[2, 4], phase="train"),
        probe=Probe([({"sample": ["a"]}, torch.randn(1, 6, 8))]),
        every_n_epochs=1,
        loggers=[lambda name, value, step: logged.setdefault(name, value)],
        figures=["layers.0.*"],
        steps=False,
    )
    following.begin()
    following.look(0, 0)
    following.end(None)
    numbers = {name.rpartition("/")[2] for name in logged if "entropy" in name}
    assert numbers == {"head2", "head4"}
    titles = [axis.get_title() for axis in logged["attention/probe"].axes]
    assert titles == ["layers.0.attend, head 2", "layers.0.attend, head 4"]


def test_chosen_heads_are_compared_as_they_are_among_all(tmp_path):
    torch.manual_seed(0)
    model, clips = Model(heads=4), torch.randn(24, 6, 8)
    labels = [i % 3 for i in range(24)]
    for folder, heads in (("all", None), ("some", [2, 4])):
        with record(model, tmp_path / folder, run="r", heads=heads, split="test") as recorder:
            recorder.samples(
                sample=[f"v{i}" for i in range(24)],
                label=labels,
                class_name=["abc"[label] for label in labels],
                subject=[i // 3 for i in range(24)],
            )
            model(clips)
    whole = compare_class(open_store(tmp_path / "all"), "a").table
    from_maps = compare_class(open_store(tmp_path / "some"), "a").table
    from_kept = compare_class(open_store(tmp_path / "some"), "a").table
    assert from_maps.equals(from_kept)
    assert from_maps["head"].tolist() == [2, 4, 2, 4]
    same = whole[whole["head"].isin([2, 4])]
    np.testing.assert_allclose(from_maps[["W", "B"]], same[["W", "B"]], atol=1e-4)

"""Findings beside the maps: written whole, read without torch, gone with their run."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.test_record import run_command
from tests.evidence.test_faithfulness import known
from tssan_viz.errors import UserError
from tssan_viz.evidence.kept import (
    FAITHFULNESS,
    HEADS,
    copy_evidence,
    evidence_folder,
    evidence_line,
    keep,
    kept_evidence,
)
from tssan_viz.store import AttentionStore, open_store
from tssan_viz.store.upkeep import compact, merge, remove
from tssan_viz.store.verification import verify
from tssan_viz.views.payload import head_view_payload


@pytest.fixture
def store(small_store: AttentionStore, tmp_path: Path) -> AttentionStore:
    shutil.copytree(small_store.path, tmp_path / "store")
    return open_store(tmp_path / "store")


def finding() -> dict:
    found = known()
    found.methods[0] = "received"
    return found.to_dict()


def test_a_line_says_what_the_table_says(store: AttentionStore) -> None:
    run = store.latest_run()
    assert evidence_line(store, label=2) is None
    kept = finding()
    keep(store, run, FAITHFULNESS, 2, kept)
    own, chance = kept["table"][0], kept["table"][-1]
    half = (chance["deletion_high"] - chance["deletion_low"]) / 2
    assert evidence_line(store, label=2) == (
        f"deletion AUC {own['deletion']:.2f}, random {chance['deletion']:.2f} ± {half:.2f} "
        "(received attention, 8 subjects)"
    )
    assert evidence_line(store, label=1) is None
    assert evidence_line(store, label=2, method="flow") is None
    of_video = evidence_line(store, label=2, sample="v3")
    assert of_video is not None
    assert of_video.endswith("(received attention, this video)")
    # What was found over all classes stands for a class that was not asked about by itself.
    keep(store, run, FAITHFULNESS, None, kept)
    line = evidence_line(store, label=1)
    assert line is not None
    assert line.endswith("8 subjects, all classes)")


def test_a_video_s_own_areas_go_before_those_of_its_class(store: AttentionStore) -> None:
    run = store.latest_run()
    whole = finding()
    keep(store, run, FAITHFULNESS, None, whole)
    keep(store, run, FAITHFULNESS, 2, whole | {"videos": whole["videos"][:1]})
    line = evidence_line(store, label=2, sample=whole["videos"][-1]["sample"])
    assert line is not None
    assert line.endswith("this video)")
    line = evidence_line(store, label=2)
    assert line is not None
    assert "all classes" not in line


def test_the_line_stands_under_every_map_that_is_shown(store: AttentionStore) -> None:
    selection = store.select(run=store.latest_run())
    first = selection.rows().iloc[0]
    assert "evidence" not in head_view_payload(selection).manifest, "nothing was tested"
    keep(store, selection.run, FAITHFULNESS, int(first["label"]), finding())
    line = evidence_line(store, label=int(first["label"]), sample=first["sample"])
    assert head_view_payload(selection).manifest["evidence"] == line


def test_findings_outlive_upkeep_and_go_with_their_run(
    store: AttentionStore, tmp_path: Path
) -> None:
    run = store.latest_run()
    keep(store, run, FAITHFULNESS, 2, finding())
    keep(store, run, HEADS, 2, {"table": []})
    before = kept_evidence(store, run)
    assert [one["kind"] for one in before] == [FAITHFULNESS, HEADS]
    compact(store)
    assert not verify(store).damaged
    assert kept_evidence(open_store(store.path), run) == before
    into = open_store(tmp_path / "other", create=True)
    merge([store], into)
    assert copy_evidence(store, into, run) == 2
    assert copy_evidence(store, into, "nobody") == 0
    assert kept_evidence(into, run) == before
    assert not verify(into).damaged
    folder = evidence_folder(store, run)
    remove(store, run)
    assert not folder.exists()


def test_the_command_merge_takes_findings_along(
    monkeypatch, capsys, store: AttentionStore, tmp_path: Path
) -> None:
    keep(store, store.latest_run(), HEADS, 2, {"table": []})
    words = ("merge", store.path, "--out", tmp_path / "both")
    code, _, err = run_command(monkeypatch, capsys, *words)
    assert code == 0, err
    assert kept_evidence(open_store(tmp_path / "both")) == kept_evidence(store)


def test_what_is_damaged_or_of_other_weights_is_passed_over(store: AttentionStore) -> None:
    run = store.latest_run()
    path = keep(store, run, FAITHFULNESS, 2, finding())
    whole = json.loads(path.read_text())
    path.with_name("faithfulness-1.json").write_text(path.read_text()[:100])
    path.write_text(json.dumps(whole | {"checkpoint_sha256": "another"}))
    assert kept_evidence(store, run) == []
    assert evidence_line(store, label=2) is None
    with pytest.raises(UserError, match="no run 'nobody'"):
        keep(store, "nobody", FAITHFULNESS, 2, {})


def test_reading_needs_no_torch(store: AttentionStore) -> None:
    keep(store, store.latest_run(), FAITHFULNESS, 2, finding())
    code = (
        "import sys; from tssan_viz.store import open_store; "
        "from tssan_viz.evidence.kept import evidence_line; "
        f"print(evidence_line(open_store({str(store.path)!r}), label=2)); "
        "print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    line, torch_came = done.stdout.strip().splitlines()
    assert line.startswith("deletion AUC")
    assert torch_came == "False"

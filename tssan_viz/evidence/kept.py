"""What was found out about a recorded run, kept beside its maps; reading it needs no torch.

Below ``maps/<run>/evidence/`` of a store lies one JSON per finding: ``faithfulness-<label>.json``,
``heads-<label>.json``, and ``joints-<label>.json`` of the videos that were explained. Removing the
run removes them; they tell which weights they were found with, and are not read for others.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from tssan_viz.errors import UserError
from tssan_viz.store.durable import write_atomically
from tssan_viz.store.places import Place
from tssan_viz.store.schema import run_folder

if TYPE_CHECKING:
    from tssan_viz.store import AttentionStore

FORMAT = 1
FAITHFULNESS, HEADS, JOINTS = "faithfulness", "heads", "joints"


def evidence_folder(store: AttentionStore, run: str) -> Place:
    """Return where what was found out about a run lies; it need not be there."""
    return store.path / "maps" / run_folder(run) / "evidence"


def keep(
    store: AttentionStore, run: str, kind: str, label: int | None, finding: Mapping[str, Any]
) -> Place:
    """Keep a finding, in the place of an older one of the same kind about the same class.

    Parameters
    ----------
    store, run
        A run that the store holds.
    kind
        ``faithfulness``, ``heads`` or ``joints``.
    label
        The class; None: all.
    finding
        Plain values, ready for JSON.

    Raises
    ------
    UserError
        The store cannot be written to, or holds no such run.
    """
    run = store.checked_run(run)
    folder = evidence_folder(store, run)
    described = {
        "format": FORMAT,
        "kind": kind,
        "label": label,
        "checkpoint_sha256": store.info(run).get("checkpoint_sha256"),
        **finding,
    }
    path = folder / f"{kind}-{'all' if label is None else label}.json"
    try:
        folder.mkdir(exist_ok=True)
        write_atomically(path, json.dumps(described, ensure_ascii=False, allow_nan=False) + "\n")
    except OSError as error:
        raise UserError(f"{path} cannot be written: {error.strerror}") from error
    return path


def kept_evidence(
    store: AttentionStore, run: str | None = None, *, kind: str | None = None
) -> list[dict[str, Any]]:
    """Return what was found out about a run, each finding as it was kept.

    What a crash, a later version or other weights left is passed over: it can be found anew.

    Parameters
    ----------
    store, run
        The newest run when None.
    kind
        ``faithfulness``, ``heads`` or ``joints``; the first two, about the run, when None.
    """
    run = store.checked_run(run)
    files: list[Place] = [*evidence_folder(store, run).glob(f"{kind or ''}*.json")]
    if not files:
        return []
    checkpoint = store.info(run).get("checkpoint_sha256")
    found = []
    for path in sorted(files):
        try:
            finding = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue
        if (
            isinstance(finding, dict)
            and finding.get("format") == FORMAT
            and finding.get("checkpoint_sha256") == checkpoint
            and finding.get("kind") in ((FAITHFULNESS, HEADS) if kind is None else (kind,))
        ):
            found.append(finding)
    return found


def keep_joints(
    store: AttentionStore, run: str, label: int, videos: Mapping[str, Sequence[Sequence[float]]]
) -> Place:
    """Keep how much each joint of some videos of a class counts, beside what was kept of others.

    Parameters
    ----------
    store, run
        A run that the store holds.
    label
        The videos' class.
    videos
        By sample (m, v): what the logit of the class loses when one joint of one person rests in
        its mean place (occlusion).

    Raises
    ------
    UserError
        As `keep`.
    """
    before = [one for one in kept_evidence(store, run, kind=JOINTS) if one["label"] == label]
    known = dict(before[0]["videos"]) if before else {}
    for sample, lost in videos.items():
        known[sample] = [[round(float(value), 4) for value in person] for person in lost]
    return keep(store, run, JOINTS, label, {"method": "occlusion", "videos": known})


def kept_joints(
    store: AttentionStore, run: str, label: int | None, sample: str
) -> list[list[float]] | None:
    """Return what `keep_joints` kept of a video (m, v); None where it was not explained."""
    if label is None:
        return None
    for finding in kept_evidence(store, run, kind=JOINTS):
        if finding["label"] == label:
            joints: list[list[float]] | None = finding["videos"].get(sample)
            return joints
    return None


def evidence_line(
    store: AttentionStore,
    run: str | None = None,
    *,
    label: int | None = None,
    sample: str | None = None,
    method: str = "received",
) -> str | None:
    """Say in a line, for under a map, whether what the attention points at matters.

    Parameters
    ----------
    store, run
        The newest run when None.
    label
        A class.
    sample
        A video; its own areas go before those of its class.
    method
        One of `tssan_viz.evidence.attributions.METHODS`.

    Returns
    -------
    str or None
        Such as ``deletion AUC 0.31, random 0.52 ± 0.03 (received attention, 12 subjects)``; None
        where it was not tested.
    """
    what = f"{method} attention" if method == "received" else method
    findings = kept_evidence(store, run, kind=FAITHFULNESS)
    for finding in findings:
        for video in finding["videos"] if sample is not None else []:
            if video["sample"] == sample and method in video["methods"]:
                own, chance = (video["methods"][one]["deletion"] for one in (method, "random"))
                return f"deletion AUC {own:.2f}, random {chance:.2f} ({what}, this video)"
    # What was found about the class itself goes before what was found about all.
    for finding in sorted(findings, key=lambda one: one["label"] is None):
        if label is None or finding["label"] not in (label, None):
            continue
        lines = {line["method"]: line for line in finding["table"]}
        if method in lines:
            own, chance = lines[method], lines["random"]
            width = ""
            if chance["deletion_high"] is not None:
                width = f" ± {(chance['deletion_high'] - chance['deletion_low']) / 2:.2f}"
            classes = ", all classes" if finding["label"] is None else ""
            return (
                f"deletion AUC {own['deletion']:.2f}, random {chance['deletion']:.2f}{width} "
                f"({what}, {own['subjects']} subjects{classes})"
            )
    return None


def copy_evidence(source: AttentionStore, into: AttentionStore, run: str) -> int:
    """Copy what was found out about a run to where the run was copied to; return how many."""
    if run not in source.run_names() or run not in into.run_names():
        return 0
    same = source.info(run).get("checkpoint_sha256") == into.info(run).get("checkpoint_sha256")
    files: list[Place] = [*evidence_folder(source, run).glob("*.json")] if same else []
    target = evidence_folder(into, run)
    for path in files:
        target.mkdir(exist_ok=True)
        write_atomically(target / path.name, path.read_text(encoding="utf-8"))
    return len(files)

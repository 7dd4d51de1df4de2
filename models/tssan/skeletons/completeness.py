"""Whether a download is whole: what is here beside the sizes that the published divisions have."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

import pandas as pd

from tssan.skeletons import files
from tssan.skeletons.ntu_rgbd import NTU60, NTU120, Edition, without_skeleton
from tssan.skeletons.protocols import Protocol

SIZES: dict[tuple[str, str], tuple[int, int]] = {
    ("ntu60", "xsub"): (40_091, 16_487),
    ("ntu60", "xview"): (37_646, 18_932),
    ("ntu120", "xsub"): (63_026, 50_919),
    ("ntu120", "xset"): (54_468, 59_477),
    ("utd-mhad", "cross-subject"): (431, 430),
    ("nw-ucla", "cross-subject"): (724, 760),
    ("nw-ucla", "cross-view"): (1020, 464),
    ("nw-ucla", "cross-view-with-leak"): (1020, 464),
}
"""(data set, protocol): sequences to train and to test on, exact copies among them included; of NTU
RGB+D without the samples that lack skeletons."""

EDITIONS = {edition.name: edition for edition in (NTU60, NTU120)}
CAMERAS = 3


def check_sizes(dataset: str, protocols: Sequence[Protocol], index: pd.DataFrame) -> list[str]:
    """Compare what was read with what the protocols divide.

    Parameters
    ----------
    dataset
        The data set's name.
    protocols
        Its protocols; those whose size is not known are passed over.
    index
        One line per sequence with the columns sample, subject, camera and setup, as in
        `tssan.dataset.SkeletonDataset.index`.

    Returns
    -------
    list of str
        One sentence per protocol that is not whole; then, for NTU RGB+D, what is missing. Empty
        when all is there.
    """
    said = []
    short = False
    for protocol in protocols:
        differing = []
        for side, published, values in zip(
            ("training", "test"),
            published_sizes(dataset, protocol),
            (protocol.train, protocol.test),
            strict=True,
        ):
            here = int(index[protocol.by].isin(values).sum())
            if published is not None and here != published:
                differing.append(
                    f"{published:,} {side} sequences are in the protocol, {here:,} are here"
                )
                short |= here < published
        if differing:
            said.append(f"{protocol.name}: {'; '.join(differing)}")
    edition = EDITIONS.get(_plain(dataset))
    if short and edition is not None:
        said += what_is_missing(index["sample"], edition)
    return said


def published_sizes(dataset: str, protocol: Protocol) -> tuple[int | None, int | None]:
    """Return how many sequences a protocol trains and tests on when all are there.

    For a protocol that lists its samples these are its own numbers; None where it is not known.
    """
    if protocol.by == "sample":
        return len(protocol.train), len(protocol.test)
    return SIZES.get((_plain(dataset), protocol.name), (None, None))


def what_is_missing(samples: Iterable[str], edition: Edition) -> list[str]:
    """Say which recordings of NTU RGB+D are not among the samples.

    Every performance (set-up, performer, replication) consists of 60 actions seen by three
    cameras: of actions 1 to 60 in the first 17 set-ups, of 61 to 120 in the others. The samples
    without skeleton are not expected.

    Returns
    -------
    list of str
        A sentence for each kind of gap: whole set-ups, cameras, actions; incomplete performances.
    """
    seen: dict[str, set[int]] = {key: set() for key in ("setup", "camera", "action")}
    performances: Counter[str] = Counter()
    named = [sample for sample in samples if files.NTU_RGBD.pattern.match(f"{sample}.skeleton")]
    if not named:  # CTR-GCN's archives keep no names
        return []
    for sample in named:
        _, numbers = files.parse_name(f"{sample}.skeleton", files.NTU_RGBD)
        for key, values in seen.items():
            values.add(numbers[key])
        performances[_performance(sample)] += 1
    expected = {"setup": edition.setups, "camera": CAMERAS, "action": edition.actions}
    said = []
    for key, last in expected.items():
        if missing := sorted(set(range(1, last + 1)) - seen[key]):
            what = {"setup": "set-up", "camera": "camera", "action": "action"}[key]
            number = "is" if len(missing) == 1 else "are"
            said.append(
                f"{what}{'s' * (len(missing) > 1)} {_spans(missing, key[0].upper())} "
                f"{number} missing"
            )
    if seen["camera"] >= set(range(1, CAMERAS + 1)) and len(seen["action"]) == edition.actions:
        without = Counter(map(_performance, without_skeleton()))
        whole = 60 * CAMERAS
        gaps = {
            name: whole - without[name] - number
            for name, number in performances.items()
            if number < whole - without[name]
        }
        if gaps:
            first = min(gaps)
            number = "1 performance is" if len(gaps) == 1 else f"{len(gaps):,} performances are"
            said.append(
                f"{number} incomplete, such as {first}, which lacks {gaps[first]} of its "
                f"{whole - without[first]} recordings"
            )
    return said


def _plain(dataset: str) -> str:
    """Return the name of the data set whose people and videos these are: of ntu60-hrnet17 ntu60."""
    first, _, rest = dataset.partition("-")
    return first if first in EDITIONS and rest.startswith("hrnet") else dataset


def _performance(sample: str) -> str:
    """Return set-up, performer and replication: of S001C002P003R001A060 S001P003R001."""
    return sample[:4] + sample[8:16]


def _spans(numbers: Sequence[int], letter: str) -> str:
    """Write rising numbers as spans: S001, S012–S017."""
    spans: list[list[int]] = []
    for number in numbers:
        if spans and number == spans[-1][-1] + 1:
            spans[-1][1:] = [number]
        else:
            spans.append([number])
    return ", ".join("–".join(f"{letter}{number:03d}" for number in span) for span in spans)

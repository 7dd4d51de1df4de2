"""Whether a download is whole, on made-up lists of samples as NTU RGB+D numbers them."""

from __future__ import annotations

import pandas as pd
import pytest
from tssan.skeletons import protocols
from tssan.skeletons.completeness import SIZES, check_sizes, published_sizes, what_is_missing
from tssan.skeletons.ntu_rgbd import NTU60, NTU120, without_skeleton
from tssan.skeletons.protocols import Protocol


def samples(setups=range(1, 18), cameras=(1, 2, 3), actions=range(1, 61), people=(1, 2, 3)):
    """One performance of each person in each set-up; half of all actions lie in set-ups from 18."""
    names = [
        f"S{s:03d}C{c:03d}P{p:03d}R001A{a + 60 * (s > 17):03d}"
        for s in setups
        for p in people
        for c in cameras
        for a in actions
    ]
    return [name for name in names if name not in without_skeleton()]


def index_of(names: list[str]) -> pd.DataFrame:
    columns = {"setup": slice(1, 4), "camera": slice(5, 8), "subject": slice(9, 12)}
    return pd.DataFrame(
        {"sample": names} | {c: [int(name[at]) for name in names] for c, at in columns.items()}
    )


def test_a_short_download_says_what_lacks():
    said = check_sizes("ntu60", NTU60.protocols, index_of(samples(range(1, 12))))
    train = len(samples(range(1, 12), (2, 3)))
    test = len(samples(range(1, 12), (1,)))
    assert said[1:] == [
        f"xview: 37,646 training sequences are in the protocol, {train:,} are here; "
        f"18,932 test sequences are in the protocol, {test:,} are here",
        "set-ups S012–S017 are missing",
    ]
    assert said[0].startswith("xsub: 40,091 training sequences are in the protocol, ")


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (samples(), []),
        (samples(range(1, 17)), ["set-up S017 is missing"]),
        (samples([1, 3, 4, 17]), ["set-ups S002, S005–S016 are missing"]),
        (samples(cameras=(1, 3)), ["camera C002 is missing"]),
        (samples(actions=range(1, 50)), ["actions A050–A060 are missing"]),
        (
            [name for name in samples() if not name.startswith("S005C002P002")],
            [
                "1 performance is incomplete, such as S005P002R001, which lacks 60 of its 180 "
                "recordings"
            ],
        ),
        (samples()[:-90], ["1 performance is incomplete, such as S017P003R001, which lacks 90"]),
        ([f"train_{i:06d}" for i in range(9)], []),
    ],
)
def test_each_kind_of_gap_has_its_sentence(names, said):
    found = what_is_missing(names, NTU60)
    assert len(found) == len(said)
    assert all(sentence.startswith(start) for sentence, start in zip(found, said, strict=True))


def test_performances_of_either_half_have_sixty_actions():
    assert what_is_missing(samples(range(1, 33)), NTU120) == []
    assert what_is_missing(samples(range(1, 30)), NTU120) == ["set-ups S030–S032 are missing"]


def test_what_is_whole_says_nothing():
    index = pd.DataFrame({"subject": [1] * 431 + [2] * 430, "sample": "", "camera": 1, "setup": 1})
    assert check_sizes("utd-mhad", protocols.UTD_MHAD, index) == []
    assert check_sizes("utd-mhad", protocols.UTD_MHAD, index[:-4]) == [
        "cross-subject: 430 test sequences are in the protocol, 426 are here"
    ]
    assert check_sizes("somebody's", protocols.UTD_MHAD, index[:3]) == []


def test_too_many_are_reported_too():
    index = pd.DataFrame({"subject": [1] * 440 + [2] * 430, "sample": "", "camera": 1, "setup": 1})
    assert check_sizes("utd-mhad", protocols.UTD_MHAD, index) == [
        "cross-subject: 431 training sequences are in the protocol, 440 are here"
    ]


def test_a_protocol_that_lists_its_samples_states_its_own_size():
    listed = Protocol("mine", "sample", ("a", "b", "c"), ("d",))
    index = pd.DataFrame({"sample": ["a", "b", "d"]})
    assert check_sizes("mine", [listed], index) == [
        "mine: 3 training sequences are in the protocol, 2 are here"
    ]


def test_poses_in_the_image_have_the_sizes_of_the_videos():
    assert published_sizes("ntu60-hrnet17", NTU60.protocols[0]) == (40091, 16487)
    assert published_sizes("ntu120-hrnet17", NTU120.protocols[1]) == (54468, 59477)
    assert published_sizes("kinetics-hrnet17", NTU60.protocols[0]) == (None, None)


def test_sizes_fit_the_totals_and_performances_are_whole():
    """With the samples without skeleton all parts consist of whole performances of 180."""
    columns = {"subject": slice(9, 12), "camera": slice(5, 8), "setup": slice(1, 4)}
    for edition, total in ((NTU60, 56_578), (NTU120, 113_945)):
        gone = [name for name in without_skeleton() if edition.holds(f"{name}.skeleton")]
        for protocol in edition.protocols:
            sizes = SIZES[edition.name, protocol.name]
            assert sum(sizes) == total
            for size, values in zip(sizes, (protocol.train, protocol.test), strict=True):
                lost = sum(int(name[columns[protocol.by]]) in values for name in gone)
                assert (size + lost) % (60 if protocol.by == "camera" else 180) == 0
    assert 56_578 + 302 == 56_880
    assert 113_945 + 535 == 114_480


def test_real_data_are_whole(utd_mhad_zip, nw_ucla_zip):
    from tssan.skeletons import nw_ucla, utd_mhad
    from tssan.skeletons.files import NW_UCLA, UTD_MHAD, parse_name

    for reader, kind, source, division in (
        (utd_mhad, UTD_MHAD, utd_mhad_zip, protocols.UTD_MHAD),
        (nw_ucla, NW_UCLA, nw_ucla_zip, protocols.NW_UCLA),
    ):
        named = [parse_name(file.name, kind) for file in reader.find_files(source)]
        index = pd.DataFrame(
            {
                "sample": [sample for sample, _ in named],
                "subject": [numbers["subject"] for _, numbers in named],
                "camera": [numbers.get("view") for _, numbers in named],
            }
        )
        assert check_sizes(kind.dataset, division, index) == []

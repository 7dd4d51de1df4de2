from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.distance import jensenshannon

from tests.stores import make_catalogue, make_sites, softmax_maps
from tssan_viz.errors import UserError
from tssan_viz.store import Site, open_store
from tssan_viz.store.codes import CODES, decode_lines, decode_tensor, encode
from tssan_viz.store.schema import decode, decode_pieces

CATALOGUE = make_catalogue(("put on jacket", "reading"))


def a_softmax(query, key, sharpness, seed):
    """Three maps, from spread-out to sharp."""
    score = sharpness * np.random.default_rng(seed).normal(size=(3, query, key))
    p = np.exp(score.astype(np.float32) - score.astype(np.float32).max(-1, keepdims=True))
    return (p / p.sum(-1, keepdims=True)).astype(np.float32)


def through(maps, code):
    return decode_lines(encode(maps, code), code, *maps.shape[1:])


@pytest.mark.parametrize(("code", "tolerance"), [("compact", 2.5e-3), ("precise", 2e-5)])
def test_probabilities_come_back_within_the_code_s_error(code, tolerance):
    p = softmax_maps(np.random.default_rng(1), (64, 32, 32))
    back = through(p, code)
    assert back.dtype == np.float32
    np.testing.assert_allclose(back, p, atol=tolerance)
    np.testing.assert_allclose(back.sum(-1), 1, atol=1e-6)


def test_precise_is_finer_than_float16_and_compact_keeps_divergences():
    p = softmax_maps(np.random.default_rng(2), (200, 32, 32))
    half = np.abs(p.astype(np.float16).astype(np.float32) - p).max()
    assert np.abs(through(p, "precise") - p).max() < half
    true = jensenshannon(p[:100], p[100:], axis=-1) ** 2
    compact = through(p, "compact")
    seen = jensenshannon(compact[:100], compact[100:], axis=-1) ** 2
    assert np.quantile(np.abs(seen / true - 1), 0.99) < 0.02


@given(
    st.sampled_from(["compact", "precise"]),
    st.integers(1, 5),
    st.integers(1, 40),
    st.floats(0.01, 30),
    st.integers(0, 2**32 - 1),
)
def test_any_softmax_comes_back_as_one(code, query, key, sharpness, seed):
    p = a_softmax(query, key, sharpness, seed)
    back = through(p, code)
    assert np.isfinite(back).all()
    np.testing.assert_allclose(back.sum(-1), 1, atol=1e-5)
    assert np.abs(back - p).max() < (0.005 if code == "compact" else 5e-5)
    # Copying a run from store to store adds no error to a compact one, and to a precise one what
    # rounding √p to a 65,535th, and the row to 1 again, can at most add.
    step = 0.5 / 65535
    root = np.sqrt(back)
    at_most = 2 * step * (root + back * root.sum(-1, keepdims=True)) + 1e-7
    moved = np.abs(through(back, code) - back)
    assert (moved <= (1e-7 if code == "compact" else at_most)).all()


@pytest.mark.parametrize("code", ["float16", "compact", "precise"])
def test_a_row_of_zeros_stays_one(code):
    p = softmax_maps(np.random.default_rng(0), (2, 3, 4))
    p[1, 2] = 0
    back = through(p, code)
    assert not back[1, 2].any()
    assert back[0].all()


@pytest.mark.parametrize("code", ["compact", "precise"])
def test_a_run_keeps_its_code(tmp_path, code):
    sites = (*make_sites(2, 3, 8), Site("adjacency", 3, 3, 8, 8, kind="signed"))
    rng = np.random.default_rng(5)
    maps = {s.name: softmax_maps(rng, (6, 3, 8, 8)) for s in sites[:2]}
    maps["adjacency"] = rng.normal(size=(6, 3, 8, 8)).astype(np.float32)
    store = open_store(tmp_path / "s", create=True)
    with store.writer("a", sites=sites, catalogue=CATALOGUE, code=code) as writer:
        writer.add({"sample": list("abcdef")}, maps)
    with pytest.raises(UserError, match=f"in the code '{code}'"):
        store.writer("a", sites=sites, catalogue=CATALOGUE)
    store = open_store(tmp_path / "s")
    assert store.stored_code("a") == code
    _, values = next(store.select().iter_maps())
    assert values.dtype == np.float32
    assert decode(values) is values
    for layer, site in enumerate(sites[:2]):
        for head in range(3):
            expected = through(maps[site.name][:, head], code)
            np.testing.assert_array_equal(values[:, layer, head], expected)
    # What is no probability is kept in float16.
    signed = maps["adjacency"].astype(np.float16).astype(np.float32)
    np.testing.assert_array_equal(values[:, 2], signed)
    np.testing.assert_array_equal(store.select(layer=3).maps().values[:, 0], signed)
    one = store.select(layer=2, head=3, where="sample = 'd'").maps()
    np.testing.assert_array_equal(one.values[0, 0, 0], values[3, 1, 2])


def test_there_are_three_codes(tmp_path):
    store = open_store(tmp_path / "s", create=True)
    with pytest.raises(UserError, match="no code 'uint8'; there are float16, compact, precise"):
        store.writer("a", sites=make_sites(1, 1, 4), catalogue=CATALOGUE, code="uint8")
    with store.writer("a", sites=make_sites(1, 1, 4), catalogue=CATALOGUE) as writer:
        maps = {"blocks.0.attend": softmax_maps(np.random.default_rng(0), (1, 1, 4, 4))}
        with pytest.raises(UserError, match="float32, float16 is expected"):
            writer.add({"sample": ["v"]}, maps)


@given(
    st.sampled_from(CODES),
    st.integers(1, 5),
    st.integers(1, 40),
    st.floats(0.01, 30),
    st.integers(0, 2**32 - 1),
)
def test_torch_decodes_what_numpy_decodes(code, query, key, sharpness, seed):
    p = a_softmax(query, key, sharpness, seed)
    p[1, 0] = 0
    lines = encode(p, code)
    stored = torch.from_numpy(lines.reshape(3, query, key))
    back = decode_tensor(stored, code)
    assert back.dtype == torch.float32
    assert not back[1, 0].any()
    numpys = decode(decode_lines(lines, code, query, key))
    np.testing.assert_allclose(back.numpy(), numpys, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("small_is_zero", [False, True])
@pytest.mark.parametrize("last", [0x7C00, 0x10000], ids=["finite and positive", "every code"])
def test_float16_is_decoded_exactly(last, small_is_zero):
    halves = np.arange(last, dtype=np.uint16).view(np.float16).reshape(-1, 32, 32)
    with np.errstate(invalid="ignore"):
        expected = halves.astype(np.float32)
    # As `torch.set_flush_denormal` tells a thread to, and some libraries when they are loaded.
    torch.set_flush_denormal(small_is_zero)
    try:
        found = decode(halves)
        (pieces,) = (few.copy() for few in decode_pieces([[halves, halves]], len(halves)))
    finally:
        torch.set_flush_denormal(False)
    np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(pieces, [expected, expected])


@pytest.mark.parametrize("code", CODES)
def test_maps_come_as_tensors_some_at_a_time(tmp_path, code):
    site = make_sites(1, 3, 8)[0]
    maps = softmax_maps(np.random.default_rng(5), (10, 3, 8, 8)).astype(np.float16)
    store = open_store(tmp_path / "s", create=True)
    with store.writer("a", sites=[site], catalogue=CATALOGUE, code=code) as writer:
        writer.add({"sample": [f"v{n}" for n in range(10)], "label": [0] * 10}, {site.name: maps})
    selection = store.select(head=[1, 3])
    parts = list(selection.iter_tensors(4))
    assert [len(rows) for rows, _ in parts] == [4, 4, 2]
    assert [name for rows, _ in parts for name in rows["sample"]] == [f"v{n}" for n in range(10)]
    together = torch.cat([part for _, part in parts])
    assert together.dtype == torch.float32
    np.testing.assert_allclose(together.numpy(), selection.maps().values, rtol=1e-6, atol=1e-9)
    with pytest.raises(UserError, match="at least 1"):
        next(selection.iter_tensors(0))


def test_tensors_of_maps_in_several_codes_are_refused_in_words(tmp_path):
    sites = (*make_sites(1, 2, 4), Site("adjacency", 2, 2, 4, 4, kind="signed"))
    maps = softmax_maps(np.random.default_rng(5), (3, 2, 4, 4))
    store = open_store(tmp_path / "s", create=True)
    with store.writer("a", sites=sites, catalogue=CATALOGUE, code="compact") as writer:
        writer.add({"sample": ["a", "b", "c"], "label": 0}, {site.name: maps for site in sites})
    with pytest.raises(UserError, match=r"several codes \(compact, float16\).*name one layer"):
        next(store.select().iter_tensors())
    assert next(store.select(layer=2).iter_tensors())[1].shape == (3, 1, 2, 4, 4)

"""Figure 5 shows what the store holds, in fonts that publishers take, the same every time."""

from __future__ import annotations

import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from dataclasses import replace

import matplotlib
import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import LineCollection
from matplotlib.text import Text
from pypdf import PdfReader

import tssan_viz
from tests.stores import make_store
from tssan_viz.errors import UserError
from tssan_viz.figures import figure5, figure5_data, save_figure
from tssan_viz.figures.figure5 import _full_scale
from tssan_viz.figures.sheet import OPACITIES as _OPACITIES
from tssan_viz.figures.style import HEAD_COLOURS
from tssan_viz.store import UnknownClass


def panels(figure):
    return {axes.get_label(): axes for axes in figure.axes}


def texts(figure):
    return [text.get_text() for text in figure.findobj(Text) if text.get_text()]


def stored(store, sample, layer, head):
    maps = store.select(sample=sample, layer=layer, head=head).maps()
    assert maps.shape[:3] == (1, 1, 1)
    return maps.values[0, 0, 0]


# ---- what is chosen


def test_by_default_it_shows_the_papers_classes_in_the_last_layer(small_store):
    data = figure5_data(small_store)
    assert [video.class_name for video in data.videos] == [
        "put on jacket",
        "put on jacket",
        "reading",
    ]
    first, second, other = data.videos
    assert first.subject != second.subject
    assert first.camera == second.camera == other.camera
    assert data.layer == data.layers == max(small_store.sites(data.run)["layer"])
    assert data.heads == (1, 2, 3, 4)
    samples = small_store.select().samples().set_index("sample")
    assert samples.loc[[video.sample for video in data.videos], "correct"].all()


@pytest.mark.parametrize("name", ["hand waving", "A023", "a23", "wave", 2, "2"])
def test_classes_are_found_by_name_code_alias_and_label(small_store, name):
    data = figure5_data(small_store, name)
    assert [video.class_name for video in data.videos] == [
        "hand waving",
        "hand waving",
        "put on jacket",
    ]


def test_several_classes_give_two_subjects_of_the_first_and_one_of_each_other(small_store):
    data = figure5_data(small_store, ["reading", "drink water", "hand waving"])
    assert [video.class_name for video in data.videos] == [
        "reading",
        "reading",
        "drink water",
        "hand waving",
    ]


def test_a_selection_narrows_the_choice(small_store):
    data = figure5_data(small_store.select(subject=[5, 7], camera=2, layer=1), head=[4, 2])
    assert {video.subject for video in data.videos} == {5, 7}
    assert {video.camera for video in data.videos} == {2}
    assert data.layer == 1
    assert data.heads == (4, 2)
    for video in data.videos:
        for m, head in enumerate(data.heads):
            np.testing.assert_array_equal(video.maps[m], stored(small_store, video.sample, 1, head))


def test_one_subject_or_one_class_is_shown_and_said(small_store):
    data = figure5_data(small_store.select(subject=3))
    assert [video.class_name for video in data.videos] == ["put on jacket", "reading"]
    assert any("put on jacket" in note and "1 subject only" in note for note in data.notes)
    data = figure5_data(small_store.select(class_name="reading"))
    assert [video.class_name for video in data.videos] == ["reading", "reading"]


def test_more_than_eight_heads_show_those_with_the_highest_peaks(tmp_path):
    store = make_store(tmp_path / "store", heads=10, frames=6, subjects=2, layers=1)
    data = figure5_data(store)
    assert len(data.heads) == 8
    assert list(data.heads) == sorted(data.heads)
    samples = [video.sample for video in data.videos]
    maps = store.select(sample=samples).maps()
    peak = maps.max("key").mean(["row", "layer", "query"]).to_series()
    assert set(data.heads) == set(peak.nlargest(8).index)
    assert any("8 heads" in note and "of 10" in note for note in data.notes)
    with pytest.raises(UserError, match="9 heads were asked for; 8 fit"):
        figure5_data(store, head=list(range(1, 10)))


def test_segments_and_persons(tmp_path):
    store = make_store(
        tmp_path / "store", segments=3, persons=2, frames=6, subjects=2, layers=1, heads=2
    )
    data = figure5_data(store)
    assert data.segment == 2
    assert any("segment 2 of 3" in note for note in data.notes)
    for number in (1, 2, 3):
        data = figure5_data(store, segment=number, person=2)
        video = data.videos[0]
        sample = store.sample(video.sample)
        np.testing.assert_array_equal(video.frames, sample.frames[number - 1])
        maps = store.select(sample=video.sample, segment=number, person=2).maps()
        np.testing.assert_array_equal(video.maps, maps.values[0, -1])
        # The person shown comes first, then who else is there.
        np.testing.assert_array_equal(video.poses[0], sample.poses[1, number - 1])
        np.testing.assert_array_equal(video.poses[1], sample.poses[0, number - 1])
    with pytest.raises(UserError, match="no segment 4; it has 1, 2, 3"):
        figure5_data(store, segment=4)
    # Two people drawn in both styles, the other one in grey.
    for style in ("lines", "heat"):
        assert figure5(data, style=style).axes


def test_without_poses_or_skeleton_frame_numbers_stand_alone(tmp_path):
    store = make_store(tmp_path / "store", poses=False, frames=8, subjects=2, layers=1, heads=1)
    for style in ("lines", "heat"):
        figure = figure5(store, style=style)
        column = next(axes for name, axes in panels(figure).items() if "poses" in name)
        assert not column.collections
        assert column.texts


def test_what_does_not_exist_is_named(small_store):
    with pytest.raises(UnknownClass, match="put on jacket"):
        figure5_data(small_store, "put on jaket")
    with pytest.raises(UserError, match="no layer 9"):
        figure5_data(small_store, layer=9)
    with pytest.raises(UserError, match="no head 9"):
        figure5_data(small_store, head=9)
    with pytest.raises(UserError, match="no style 'dots'; there are lines and heat"):
        figure5(small_store, style="dots")
    with pytest.raises(UserError, match="tokens is 1"):
        figure5(small_store, tokens=1)
    with pytest.raises(UserError, match="nothing to draw"):
        figure5_data(small_store.select(subject=1, where="confidence > 2"))
    with pytest.raises(UserError, match=r"drink water \(A001\).*holds no such video"):
        figure5_data(small_store.select(class_name="reading"), "drink water")


# ---- what is drawn


@pytest.mark.parametrize("style", ["lines", "heat"])
def test_every_panel_shows_the_values_of_the_store(small_store, style):
    data = figure5_data(small_store)
    figure = figure5(small_store, style=style)
    by_name = panels(figure)
    full = _full_scale(data)
    for video in data.videos:
        for head in data.heads:
            weights = stored(small_store, video.sample, data.layer, head)
            t, s = weights.shape
            axes = by_name[f"{video.sample} head {head}"]
            if style == "heat":
                (image,) = axes.images
                np.testing.assert_array_equal(np.asarray(image.get_array()), weights)
                assert image.norm.vmin == min(one.maps.min() for one in data.videos)
                assert image.norm.vmax == pytest.approx(full)
                # Queries run down, keys to the right.
                assert axes.get_ylim()[0] > axes.get_ylim()[1]
                continue
            (lines,) = axes.collections
            assert isinstance(lines, LineCollection)
            drawn = np.zeros((t, s), bool)
            for (start, end), weight in zip(
                lines.get_segments(), np.asarray(lines.get_array()), strict=True
            ):
                assert (start[0], end[0]) == (0.0, 1.0)
                query, key = round(start[1] * (t - 1)), round(end[1] * (s - 1))
                assert weight == weights[query, key]
                drawn[query, key] = True
            assert len(lines.get_segments()) == drawn.sum()
            even = 1 / s
            assert (weights[~drawn] < even + (full - even) / _OPACITIES).all()
            assert (np.diff(np.asarray(lines.get_array())) >= 0).all()
            lines.update_scalarmappable()
            alpha = lines.get_edgecolors()[:, 3]
            expected = np.clip((np.asarray(lines.get_array()) - even) / (full - even), 0, 1)
            np.testing.assert_allclose(alpha, expected, atol=1.1 / _OPACITIES)
            rgb = matplotlib.colors.to_rgb(HEAD_COLOURS[head - 1])
            np.testing.assert_allclose(lines.get_edgecolors()[0, :3], rgb)


def test_even_attention_draws_no_line_and_no_error(small_store):
    data = figure5_data(small_store)
    even = [replace(v, maps=np.full_like(v.maps, 1 / v.maps.shape[-1])) for v in data.videos]
    for style in ("lines", "heat"):
        figure = figure5(replace(data, videos=tuple(even)), style=style)
        if style == "lines":
            by_name = panels(figure)
            for video in data.videos:
                (lines,) = by_name[f"{video.sample} head 1"].collections
                assert not lines.get_segments()


def test_the_opacity_scale_is_one_for_all_panels_and_printed(small_store):
    data = figure5_data(small_store)
    full = _full_scale(data)
    values = np.concatenate([video.maps.ravel() for video in data.videos])
    assert full == pytest.approx(np.quantile(values, 0.995))
    assert f"≥ {full:.2g}" in texts(figure5(data))
    assert "attention weight" in texts(figure5(data))
    even = 1 / data.videos[0].maps.shape[-1]
    faintest = even + (full - even) / _OPACITIES
    assert any(f"weights up to {faintest:.2g}, about" in text for text in texts(figure5(data)))
    assert "attention weight" in texts(figure5(data, style="heat"))


@pytest.mark.parametrize("style", ["lines", "heat"])
def test_titles_heads_and_frames_are_readable(small_store, style):
    data = figure5_data(small_store)
    figure = figure5(data, style=style)
    words = texts(figure)
    for video in data.videos:
        assert any(
            f"{video.class_name} ({video.class_code})" in text
            and f"subject {video.subject}" in text
            for text in words
        )
    for head in data.heads:
        assert words.count(f"head {head}") == len(data.videos)
    assert any("query frame" in text for text in words)
    assert any("key frame" in text for text in words)
    first, last = (f"{data.videos[0].frames[n]:.0f}" for n in (0, -1))
    assert any(first in text.split() for text in words)
    assert any(last in text.split() for text in words)
    sizes = {text.get_fontsize() for text in figure.findobj(Text) if text.get_text()}
    assert min(sizes) >= 7
    assert max(sizes) <= 8
    assert figure.get_size_inches()[0] == 7.0
    assert figure.get_size_inches()[1] < 9.5


@pytest.mark.parametrize("style", ["lines", "heat"])
@pytest.mark.parametrize("heads", [1, 3, 8])
def test_no_text_leaves_the_page_or_covers_another(tmp_path, style, heads):
    store = make_store(tmp_path / "store", heads=heads, frames=32, subjects=2, layers=1)
    figure = figure5(store, style=style)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    renderer = canvas.get_renderer()
    page = figure.bbox
    boxes = [
        (text.get_text(), text.get_window_extent(renderer))
        for text in figure.findobj(Text)
        if text.get_text().strip() and text.get_visible()
    ]
    for name, box in boxes:
        assert page.x0 <= box.x0, name
        assert box.x1 <= page.x1, name
        assert page.y0 <= box.y0, name
        assert box.y1 <= page.y1, name
    for n, (name, box) in enumerate(boxes):
        for other, beside in boxes[n + 1 :]:
            wide = min(box.x1, beside.x1) - max(box.x0, beside.x0)
            high = min(box.y1, beside.y1) - max(box.y0, beside.y0)
            # Line boxes have room for accents and descenders; letters do not fill it.
            assert wide < 1 or high < 0.35 * min(box.height, beside.height), (name, other)


def test_poses_are_drawn_at_evenly_spread_frames_with_the_bones_of_the_store(small_store):
    data = figure5_data(small_store)
    figure = figure5(data, tokens=5)
    columns = [axes for axes in figure.axes if axes.get_label().endswith("poses")]
    assert len(columns) == 2 * len(data.videos)
    for axes, video in zip(columns[::2], data.videos, strict=True):
        assert len(axes.collections) == 5
        t = len(video.frames)
        shown = [f"{video.frames[n]:.0f}" for n in np.linspace(0, t - 1, 5).round().astype(int)]
        assert [text.get_text() for text in axes.texts] == shown
        bones = np.array(data.skeleton.bones)
        for collection, frame in zip(
            axes.collections, np.linspace(0, t - 1, 5).round().astype(int), strict=True
        ):
            segments = np.array(collection.get_segments())
            assert segments.shape == (len(bones), 2, 2)
            # Drawn lengths are in one proportion to those in the store, and up is up.
            pose = video.poses[0, frame, :, :2]
            real = pose[bones[:, 0]] - pose[bones[:, 1]]
            drawn = segments[:, 0] - segments[:, 1]
            scale = np.linalg.norm(drawn) / np.linalg.norm(real)
            np.testing.assert_allclose(drawn, real * [scale, -scale], atol=1e-5)


def test_the_table_holds_the_numbers_behind_the_figure(small_store):
    data = figure5_data(small_store, head=[2, 3])
    table = data.table()
    t, s = data.videos[0].maps.shape[1:]
    assert len(table) == len(data.videos) * 2 * t * s
    for (sample, head), part in table.groupby(["sample", "head"]):
        expected = stored(small_store, sample, data.layer, head)
        np.testing.assert_array_equal(
            part.pivot(index="query", columns="key", values="weight").to_numpy(), expected
        )
        frames = small_store.sample(sample).frames[0]
        np.testing.assert_array_equal(part["key_frame"], frames[part["key"]])
        np.testing.assert_array_equal(part["query_frame"], frames[part["query"]])


# ---- the file


@pytest.mark.parametrize("style", ["lines", "heat"])
def test_pdf_has_truetype_fonts_text_and_the_width_of_a_page(small_store, tmp_path, style):
    path = save_figure(figure5(small_store, style=style), tmp_path / "figure.pdf")
    reader = PdfReader(path)
    (page,) = reader.pages
    fonts = [font.get_object() for font in page["/Resources"]["/Font"].values()]
    assert fonts
    for font in fonts:
        descendants = (
            [font["/DescendantFonts"][0].get_object()] if "/DescendantFonts" in font else []
        )
        kinds = {f["/Subtype"] for f in [font, *descendants]}
        assert "/Type3" not in kinds
        assert kinds & {"/TrueType", "/CIDFontType2"}
        descriptor = (descendants or [font])[0]["/FontDescriptor"].get_object()
        assert "/FontFile2" in descriptor
    assert float(page.mediabox.width) == pytest.approx(7 * 72)
    text = page.extract_text()
    assert "put on jacket" in text
    assert "head 1" in text
    # Vector; of heat maps, pictures of one pixel per cell, and the colour scale of 256.
    t = figure5_data(small_store).videos[0].maps.shape[-1]
    sizes = {picture.image.size for picture in page.images}
    assert sizes == ({(t, t), (1, 256)} if style == "heat" else set())
    assert path.stat().st_size < 2_000_000
    assert "/CreationDate" not in (reader.metadata or {})


def test_svg_keeps_its_text(small_store, tmp_path):
    path = save_figure(figure5(small_store), tmp_path / "figure.svg")
    tree = ElementTree.parse(path)
    words = " ".join(
        "".join(element.itertext()) for element in tree.iter("{http://www.w3.org/2000/svg}text")
    )
    assert "put on jacket (A014), subject" in words
    assert "head 4" in words


def test_a_class_name_from_the_data_stays_text(tmp_path):
    strange = '<script>alert(1)</script> $x^2$ & "é"'
    store = make_store(
        tmp_path / "store", classes=(strange, "reading"), frames=4, subjects=2, layers=1, heads=1
    )
    figure = figure5(store, strange)
    path = save_figure(figure, tmp_path / "figure.svg")
    assert "<script" not in path.read_text()
    words = " ".join(
        "".join(element.itertext())
        for element in ElementTree.parse(path).iter("{http://www.w3.org/2000/svg}text")
    )
    assert strange in words


@pytest.mark.parametrize("ending", ["pdf", "svg", "png"])
def test_the_same_figure_gives_the_same_bytes(small_store, tmp_path, ending, monkeypatch):
    for n in (1, 2):
        monkeypatch.setenv("TZ", ("UTC", "Asia/Tokyo")[n - 1])
        save_figure(figure5(small_store, head=1), tmp_path / f"{n}.{ending}")
    assert (tmp_path / f"1.{ending}").read_bytes() == (tmp_path / f"2.{ending}").read_bytes()


def test_saving_through_matplotlib_keeps_the_fonts(small_store, tmp_path):
    figure5(small_store, head=1).savefig(tmp_path / "mine.pdf")
    assert b"/Type3" not in (tmp_path / "mine.pdf").read_bytes()
    assert b"/CreationDate" not in (tmp_path / "mine.pdf").read_bytes()


def test_a_notebook_shows_it(small_store):
    assert figure5(small_store, head=1)._repr_png_().startswith(b"\x89PNG")


@pytest.mark.parametrize("name", ["figure.jpg", "figure.eps", "figure", "figure.pdf.zip"])
def test_other_formats_are_refused(small_store, tmp_path, name):
    with pytest.raises(UserError, match=r"saved as \.pdf, \.svg or \.png"):
        save_figure(figure5(small_store, head=1), tmp_path / name)
    assert not list(tmp_path.iterdir())


def test_a_missing_folder_is_named(small_store, tmp_path):
    with pytest.raises(UserError, match="there is no folder"):
        save_figure(figure5(small_store, head=1), tmp_path / "nowhere" / "figure.pdf")


@given(
    layer=st.integers(1, 2),
    heads=st.lists(st.integers(1, 4), min_size=1, max_size=4, unique=True),
    style=st.sampled_from(["lines", "heat"]),
    tokens=st.integers(2, 20),
)
@settings(
    max_examples=6, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_any_choice_of_layer_heads_and_tokens_can_be_drawn(
    small_store, layer, heads, style, tokens
):
    figure = figure5(small_store, layer=layer, head=heads, style=style, tokens=tokens)
    names = [name for name in panels(figure) if " head " in name]
    assert len(names) == 3 * len(heads)


def test_figure5_is_public_and_needs_no_torch(small_store, tmp_path):
    assert tssan_viz.figure5 is figure5
    code = (
        "import sys, tssan_viz\n"
        "from tssan_viz.figures import save_figure\n"
        f"figure = tssan_viz.figure5(tssan_viz.open_store({str(small_store.url)!r}), head=1)\n"
        f"save_figure(figure, {str(tmp_path / 'figure.pdf')!r})\n"
        "assert 'torch' not in sys.modules and 'matplotlib.pyplot' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
    assert isinstance(figure5_data(small_store).table(), pd.DataFrame)

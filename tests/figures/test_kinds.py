"""Every kind of figure: what it draws equals the store, and it becomes a file that is taken."""

from __future__ import annotations

import base64
import io
import re
import subprocess
from collections.abc import Callable
from itertools import pairwise

import matplotlib
import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import LineCollection
from matplotlib.text import Text
from PIL import Image
from pypdf import PdfReader
from scipy.cluster.hierarchy import cophenet

from tests.stores import _softmax, make_catalogue, make_sites, make_store
from tssan_viz import figures
from tssan_viz.comparison.class_matrix import class_matrix
from tssan_viz.comparison.difference import difference_maps
from tssan_viz.comparison.variance import variance_shares
from tssan_viz.errors import UserError
from tssan_viz.figures import PaperFigure, save_with_numbers
from tssan_viz.figures.sheet import (
    BAR,
    MARGIN,
    Sheet,
    colour_bar,
    foot,
    signed_scale,
    weight_scale,
)
from tssan_viz.figures.style import FAINT, RC, VENUES, latex_escaped

STEPS = (0, 100, 300, 600)


@pytest.fixture(scope="module")
def steps_store(tmp_path_factory):
    """A run that was recorded at four steps, in which a head grows more certain."""
    store = make_store(
        tmp_path_factory.mktemp("steps") / "store", subjects=2, cameras=(1,), frames=6, layers=1
    )
    rng = np.random.default_rng(0)
    names = ["put on jacket", "reading"]
    with store.writer(
        "training", sites=make_sites(1, 2, 6), catalogue=make_catalogue(names), info={"seed": 3}
    ) as writer:
        for step in STEPS:
            scores = rng.normal(size=(8, 2, 6, 6)) * (0.2 + step / 200)
            writer.add(
                {
                    "sample": [f"video {n}" for n in range(8)],
                    "label": [0, 1] * 4,
                    "class_name": names * 4,
                    "subject": [1, 1, 2, 2] * 2,
                    "split": "test",
                    "step": step,
                    "phase": "probe",
                },
                {"blocks.0.attend": _softmax(scores).astype(np.float16)},
            )
    return store


Draw = Callable[..., PaperFigure]
KINDS: dict[str, Draw] = {
    "figure1": figures.figure1,
    "figure5": figures.figure5,
    "filmstrip": figures.filmstrip,
    "heads": figures.heads,
    "model": figures.model,
    "difference": lambda store, **more: figures.difference(
        store, "reading", permutations=50, **more
    ),
    "subjects": figures.subjects,
    "similarity": figures.similarity,
    "decoding": lambda store, **more: figures.decoding(store, permutations=20, **more),
    "rollout": figures.rollout,
    "confusion": figures.confusion,
}


def evolution(store, **more):
    return figures.evolution(store, run="training", **more)


def panels(figure):
    return {axes.get_label(): axes for axes in figure.axes}


def drawn_map(axes):
    (image,) = axes.images
    return np.asarray(image.get_array())


def drawn_texts(figure, monkeypatch):
    """Return each text that is drawn, and where; ticks beyond an axis are texts that are not."""
    drawn = []
    draw_text = Text.draw

    def recorded(text, renderer):
        if text.get_text().strip():
            # Without the line to what an annotation is about.
            drawn.append((text, Text.get_window_extent(text, renderer)))
        draw_text(text, renderer)

    monkeypatch.setattr(Text, "draw", recorded)
    # Fine dots, since letters on coarse ones are narrower than in print.
    figure.set_dpi(300)
    with matplotlib.rc_context(RC):
        FigureCanvasAgg(figure).draw()
    return drawn


def assert_on_the_page(drawn, figure):
    page = figure.bbox
    for text, box in drawn:
        assert page.x0 - 1 <= box.x0, text.get_text()
        assert box.x1 <= page.x1 + 1, text.get_text()
        assert page.y0 - 1 <= box.y0, text.get_text()
        assert box.y1 <= page.y1 + 1, text.get_text()
        assert text.get_parse_math() is False, text.get_text()


def stored_mean(store, **conditions):
    """Return the mean over subjects of each subject's mean map, from the rows themselves."""
    maps = store.select(**conditions).maps()
    who = maps["subject"].values
    return np.mean([maps.values[who == one].mean(axis=0) for one in np.unique(who)], axis=0)


# ---- what is drawn


def test_heads_model_and_subjects_show_the_mean_of_the_store(small_store):
    expected = stored_mean(small_store, class_name="reading")  # (l, h, q, s)
    by_name = panels(figures.heads(small_store, "reading"))
    for n in range(4):
        np.testing.assert_allclose(drawn_map(by_name[f"head {n + 1}"]), expected[-1, n], rtol=1e-5)
    by_name = panels(figures.model(small_store, "reading"))
    for (layer, head), _ in np.ndenumerate(expected[:, :, 0, 0]):
        np.testing.assert_allclose(
            drawn_map(by_name[f"layer {layer + 1} head {head + 1}"]),
            expected[layer, head],
            rtol=1e-5,
        )
    figure = figures.subjects(small_store, "reading", layer=1, head=2)
    by_name = panels(figure)
    for subject in range(1, 9):
        mean = stored_mean(small_store, class_name="reading", subject=subject, layer=1, head=2)
        np.testing.assert_allclose(drawn_map(by_name[f"subject {subject}"]), mean[0, 0], rtol=1e-5)
    assert "n = 32 videos of 8 subjects" in figure.caption
    assert "seed 0" in figure.caption


def test_figure1_draws_the_strongest_links_of_two_heads(small_store):
    figure = figures.figure1(small_store, "reading", head=[1, 3], frames=4, links=5)
    table = figure.table
    sample = table["sample"].iloc[0]
    for head in (1, 3):
        weights = small_store.select(sample=sample, layer=2, head=head).maps().values[0, 0, 0]
        # Sixteen frames in four stretches of four.
        expected = weights.reshape(4, 4, 4, 4).mean(axis=1).sum(axis=-1)
        mine = table[table["head"] == head]
        np.testing.assert_allclose(mine["weight"], expected.ravel(), rtol=1e-5)
        np.testing.assert_allclose(
            mine.groupby("query_pose")["weight"].sum(), weights.sum(axis=1).mean(), atol=2e-3
        )
        drawn = mine[mine["drawn"]]
        assert sorted(drawn["weight"]) == sorted(mine["weight"].nlargest(5))
        links, *_ = (
            one
            for one in panels(figure)[f"links head {head}"].collections
            if isinstance(one, LineCollection) and one.get_array() is not None
        )
        np.testing.assert_allclose(np.asarray(links.get_array()), np.sort(drawn["weight"]))
    assert len(set(figure.figure.findobj(lambda one: "links head" in str(one.get_label())))) == 2


def test_figure1_says_when_there_are_fewer_frames_than_poses(small_store):
    assert "16 poses are drawn of 100: the video has 16 sampled frames" in (
        figures.figure1(small_store, frames=100).notes
    )
    assert not any("poses are drawn" in note for note in figures.figure1(small_store).notes)


def test_filmstrip_shades_by_what_frames_receive(small_store):
    figure = figures.filmstrip(small_store, "reading", head=2)
    for sample, part in figure.table.groupby("sample"):
        maps = small_store.select(sample=sample, layer=2, head=2).maps().values[0, 0, 0]
        np.testing.assert_allclose(part["received"], maps.mean(axis=0), rtol=1e-5)
        bars = panels(figure)[f"{sample} received"].patches
        np.testing.assert_allclose([bar.get_height() for bar in bars], maps.mean(axis=0), rtol=1e-5)


def test_difference_outlines_the_cells_that_survive_and_no_others(tmp_path):
    store = make_store(
        tmp_path / "store", planted="reading", frames=6, heads=2, cameras=(1,), replications=(1,)
    )
    figure = figures.difference(store, "reading", permutations=200)
    test = store.select(split="test")
    of_class = test.select(class_name="reading")
    found = difference_maps(of_class, test - of_class, layer=2, permutations=200)
    np.testing.assert_array_equal(figure.table["significant"], found.significant.ravel())
    np.testing.assert_array_equal(figure.table["difference"], found.difference.ravel())
    assert found.significant[0].any()
    for n in range(2):
        axes = panels(figure)[f"A − B 2 {n + 1}"]
        (outline,) = (one for one in axes.collections if isinstance(one, LineCollection))
        cells = found.significant[n]
        padded = np.pad(cells, 1).astype(int)
        edges = np.abs(np.diff(padded, axis=0)).sum() + np.abs(np.diff(padded, axis=1)).sum()
        assert len(outline.get_segments()) == edges
    assert "max-T" in figure.caption
    assert "seed 0" in figure.caption
    number, cells = int(found.significant.sum()), found.significant.size
    said = f"{number} of {cells} cells differ and are outlined"
    assert said in figure.caption
    assert any(f"{said} (max-T, 0.05)" in text.get_text() for text in figure.texts)
    # Of a head in which nothing differs, nothing is said to be outlined.
    quiet = figures.difference(found, names=("a", "b"), head=2)
    assert not found.significant[1].any()
    assert "outlined" not in quiet.caption
    assert "No cell differs at 0.05" in quiet.caption
    assert "rows are queries, columns keys" in quiet.caption
    assert any("no cell differs (max-T, 0.05)" in text.get_text() for text in quiet.texts)
    labels = {axes.get_xlabel() for axes in quiet.axes} | {axes.get_ylabel() for axes in quiet.axes}
    assert {"query frame", "key frame"} <= labels


def test_evolution_shows_the_steps_and_the_entropy_of_rows(steps_store):
    figure = figures.evolution(steps_store, run="training", head=2, maps=3)
    by_name = panels(figure)
    shown = [int(name.split()[1]) for name in by_name if name.startswith("step")]
    assert shown == [0, 300, 600]
    (line,) = by_name["entropy"].lines
    assert list(line.get_xdata()) == list(STEPS)
    for step, value in zip(STEPS, line.get_ydata(), strict=True):
        maps = steps_store.select(run="training", step=step, head=2).maps().values[:, 0, 0]
        from scipy.stats import entropy

        np.testing.assert_allclose(value, entropy(maps, axis=-1).mean() / np.log(6), atol=2e-3)
    assert all(a > b for a, b in pairwise(line.get_ydata()))
    np.testing.assert_allclose(
        drawn_map(by_name["step 300"]),
        stored_mean(steps_store, run="training", step=300, head=2)[0, 0],
        rtol=1e-5,
    )


def test_evolution_shows_the_share_of_the_class_at_each_step(steps_store, monkeypatch):
    figure = evolution(steps_store, head=2, venue="cvpr", columns=1)
    (line,) = (one for one in panels(figure)["class share"].lines if len(one.get_xdata()) > 2)
    for step, value in zip(STEPS, line.get_ydata(), strict=True):
        found = variance_shares(steps_store.select(run="training", step=step, head=2), layer=1)
        assert value == pytest.approx(found.wide()["class"].iloc[0])
    assert "share of the class" in figure.caption
    assert_on_the_page(drawn_texts(figure, monkeypatch), figure)
    # Of one class there is no such share.
    figure = evolution(steps_store, class_name="reading")
    assert "class share" not in panels(figure)
    assert any("no class share is drawn" in note for note in figure.notes)


def test_rollout_is_the_product_of_the_layers(small_store):
    figure = figures.rollout(small_store.select(class_name="reading", subject=3))
    maps = small_store.select(class_name="reading", subject=3).maps().values
    t = maps.shape[-1]
    product, expected = np.eye(t), []
    single = []
    for row in maps:
        product = np.eye(t)
        layers = []
        for layer in row:
            step = layer.mean(axis=0) + np.eye(t)
            product = step / step.sum(axis=1, keepdims=True) @ product
            layers.append(product)
        single.append(layers)
    expected = np.mean(single, axis=0)
    for n, one in enumerate(expected):
        np.testing.assert_allclose(
            drawn_map(panels(figure)[f"rollout {n + 1}"]), one, rtol=1e-4, atol=1e-6
        )


def test_similarity_is_ordered_as_it_is_clustered(small_store):
    figure = figures.similarity(small_store)
    found = class_matrix(small_store.select(split="test"))
    drawn = drawn_map(panels(figure)["matrix"])
    np.testing.assert_array_equal(drawn, found.similarity[np.ix_(found.order, found.order)])
    names = [label.get_text() for label in panels(figure)["matrix"].get_yticklabels()]
    assert names == [found.names[n] for n in found.order]
    tops = {round(max(line.get_ydata()), 9) for line in panels(figure)["tree"].lines}
    assert tops == {round(height, 9) for height in cophenet(found.linkage)}


def test_confusion_counts_videos(small_store):
    figure = figures.confusion(small_store)
    samples = small_store.select().samples()
    for line in figure.table.itertuples():
        mine = samples[samples["class_name"] == line.class_name]
        assert line.videos == (mine["predicted_name"] == line.predicted_name).sum()
        assert line.share == pytest.approx(line.videos / len(mine))
    right = int(samples["correct"].sum())
    assert f"{right} of {len(samples)} videos are recognised" in figure.caption


# ---- how it is drawn


@pytest.mark.parametrize("kind", ["heads", "model", "subjects", "difference", "evolution"])
def test_one_scale_goes_from_the_least_that_is_shown_and_marks_even_attention(
    small_store, steps_store, kind
):
    figure = evolution(steps_store) if kind == "evolution" else KINDS[kind](small_store)
    images = [
        image
        for label, axes in panels(figure).items()
        for image in axes.images
        if label.startswith(("head", "layer", "subject", "mean", "step"))
    ]
    shown = np.concatenate([np.asarray(image.get_array()).ravel() for image in images])
    for image in images:
        assert image.norm.vmin == shown.min()
        assert image.norm.vmax == pytest.approx(np.quantile(shown, 0.995))
    even = 1 / images[0].get_array().shape[1]
    bar = next(axes for axes in figure.axes if axes.get_label() == "colour scale")
    assert any(line.get_ydata()[0] == pytest.approx(even) for line in bar.lines)
    assert f"▸ even attention, {even:.3g}" in figure.caption


def test_nearly_even_attention_is_told_apart_but_rounding_is_not():
    even = np.full((8, 8), 1 / 8)
    tilted = even + np.linspace(-0.01, 0.01, 8)
    scale = weight_scale([even, tilted])
    assert scale.norm(tilted[0, 0]) == 0
    assert scale.norm(tilted[0, -1]) > 0.99
    rounded = even + np.linspace(-3e-5, 3e-5, 8)
    assert np.ptp(weight_scale([rounded]).norm(rounded)) < 0.1
    # Scores that are no shares have no even attention.
    assert weight_scale([4 * tilted]).even is None


def test_small_numbers_stand_beside_their_scale_in_thousandths(monkeypatch):
    width = VENUES["elsevier"][1]
    small = signed_scale([np.linspace(-0.0047, 0.0047, 64).reshape(8, 8)])
    for scale, shortened in ((small, True), (signed_scale([np.linspace(-0.3, 0.3, 4)]), False)):
        with matplotlib.rc_context(RC):
            sheet = Sheet(1.4, width)
            colour_bar(sheet, scale, width - MARGIN - BAR + 0.06, 0.1, 0.8, "difference")
        drawn = drawn_texts(sheet.figure, monkeypatch)
        assert_on_the_page(drawn, sheet.figure)
        words = [text.get_text() for text, _ in drawn]
        assert ("× 0.001" in words) == shortened
        assert ("−2.5" in words) == shortened, words


@pytest.mark.parametrize(("kind", "last"), [("heads", "0.0625"), ("filmstrip", "attention")])
def test_a_footnote_is_told_whole_in_one_column(small_store, monkeypatch, kind, last):
    narrow = KINDS[kind](small_store, venue="springer", columns=1)
    wide = KINDS[kind](small_store, venue="neurips", columns=2)
    foots = []
    for figure in (narrow, wide):
        drawn = drawn_texts(figure, monkeypatch)
        assert_on_the_page(drawn, figure)
        # A footnote is the figure's own text at its left edge, below every heading.
        left = [
            (box, text.get_text())
            for text, box in drawn
            if text.axes is None and text.get_color() == FAINT and text.get_ha() == "left"
        ]
        foots.append([words for _, words in sorted(left, key=lambda one: -one[0].y0)])
        for box, words in left:
            assert not any(overlap(box, its) for text, its in drawn if text.get_text() != words), (
                words
            )
    assert len(foots[0]) > len(foots[1])
    assert " ".join(foots[0]) == " ".join(foots[1])
    assert foots[0][-1].endswith(last)


def test_a_longer_footnote_moves_nothing_but_the_lower_edge():
    boxes = []
    for words in ("short", "long " * 60):
        with matplotlib.rc_context(RC):
            sheet = Sheet(2.0, 3.4)
            sheet.title("title", 0.1)
            axes = sheet.axes(0.5, 0.3, 1.0, 1.2, "panel")
            foot(sheet, words.strip())
        height = sheet.figure.get_figheight()
        box = axes.get_position()
        title = sheet.figure.texts[0].get_position()[1]
        boxes.append([(1 - box.y1) * height, box.height * height, (1 - title) * height])
    assert height > 2.3
    np.testing.assert_allclose(boxes[0], boxes[1])
    np.testing.assert_allclose(boxes[0], [0.3, 1.2, 0.1])


def test_heads_are_counted_where_none_is_left_out(small_store):
    assert "and all 4 heads)" in figures.filmstrip(small_store).caption
    assert "and heads 1, 3)" in figures.filmstrip(small_store, head=[1, 3]).caption
    only = small_store.select(head=[1, 2])
    assert "and heads 1, 2)" in figures.filmstrip(only).caption
    for source, words in ((small_store, "all 4 heads"), (only, "heads 1, 2")):
        caption = figures.difference(source, "reading", permutations=20).caption
        assert f"layer 2, {words}; rows are queries" in caption


def overlap(a, b):
    return min(a.x1, b.x1) - max(a.x0, b.x0) > 1 and min(a.y1, b.y1) - max(a.y0, b.y0) > 1


def test_numbers_of_heads_do_not_cover_each_other(tmp_path, monkeypatch):
    store = make_store(tmp_path / "store", subjects=4, cameras=(1,), heads=8, frames=6)
    figure = figures.decoding(store, permutations=20, venue="cvpr")
    table = figure.table
    numbers = [
        (text, box)
        for text, box in drawn_texts(figure, monkeypatch)
        if "." in text.get_text() and text.axes is panels(figure)["decoding"]
    ]
    said = {
        f"{layer}.{head}"
        for text, _ in numbers
        for layer, heads in [text.get_text().split(".")]
        for head in heads.split(",")
    }
    assert said == {f"{line.layer}.{line.head}" for line in table.itertuples()}
    for n, (text, box) in enumerate(numbers):
        for other, its in numbers[:n]:
            assert not overlap(box, its), (text.get_text(), other.get_text())


@pytest.mark.parametrize("draw", [figures.confusion, figures.similarity])
def test_forty_classes_can_be_read_in_one_column(tmp_path, monkeypatch, draw):
    classes = [f"{verb} the {what}" for verb in "abcdefgh" for what in ("jacket", "hat", *"xyz")]
    store = make_store(
        tmp_path / "store", classes=classes, subjects=2, cameras=(1,), replications=(1,),
        layers=1, heads=1, frames=4,
    )  # fmt: skip
    figure = draw(store, venue="cvpr", columns=1)
    drawn = drawn_texts(figure, monkeypatch)
    assert_on_the_page(drawn, figure)
    assert all(text.get_fontsize() >= 5 for text, _ in drawn)
    said = [text.get_text() for text, _ in drawn]
    assert sum(any(name in word for word in said) for name in classes) == 40
    for n, (text, box) in enumerate(drawn):
        for other, its in drawn[:n]:
            assert not overlap(box, its), (text.get_text(), other.get_text())


# ---- files


@pytest.mark.parametrize("kind", [*KINDS, "evolution"])
def test_every_kind_is_saved_with_caption_numbers_and_no_type_3_font(
    small_store, steps_store, tmp_path, kind
):
    store = steps_store if kind == "evolution" else small_store
    draw = KINDS.get(kind, evolution)
    figure = draw(store)
    paths = save_with_numbers(figure, tmp_path / "figure.pdf")
    assert [path.name for path in paths] == ["figure.pdf", "figure.txt", "figure.csv"]
    fonts = subprocess.run(["pdffonts", paths[0]], check=True, capture_output=True, text=True)
    assert "TrueType" in fonts.stdout
    assert "Type 3" not in fonts.stdout
    caption = paths[1].read_text()
    assert "subject" in caption
    assert len(paths[2].read_text().splitlines()) == len(figure.table) + 1 > 2
    again = save_with_numbers(draw(store), tmp_path / "again.pdf")
    for first, second in zip(paths, again, strict=True):
        assert first.read_bytes() == second.read_bytes()


@pytest.mark.parametrize("kind", KINDS)
def test_no_text_leaves_the_page_and_markup_in_names_stays_text(tmp_path, kind, monkeypatch):
    strange = ("put $x^2$ & <b>on_the\\jacket</b>", "reading " * 8, "a_b", "100 %")
    store = make_store(
        tmp_path / "store", classes=strange, subjects=3, cameras=(1,), heads=2, frames=8
    )
    draw = KINDS[kind]
    if kind == "difference":
        draw = figures.difference
        figure = draw(store, 0, permutations=20, venue="cvpr")
    else:
        figure = draw(store, venue="cvpr", **({"columns": 1} if kind != "figure5" else {}))
    assert_on_the_page(drawn_texts(figure, monkeypatch), figure)
    if kind in ("figure1", "similarity", "confusion", "difference"):
        assert any("$x^2$" in text.get_text() for text in figure.findobj(Text))


@pytest.mark.parametrize(("venue", "widths"), VENUES.items())
def test_a_figure_is_as_wide_as_the_venues_columns(small_store, venue, widths):
    for columns, width in enumerate(widths, start=1):
        figure = figures.confusion(small_store, venue=venue, columns=columns)
        assert figure.get_size_inches()[0] == pytest.approx(width)


def test_characters_that_latex_takes_for_markup_are_escaped():
    assert latex_escaped("query ↓ key →") == r"query $\downarrow$ key $\rightarrow$"
    assert latex_escaped("a_b $x$ 5 % {c} \\d ~^#&") == (
        r"a\_b \$x\$ 5 \% \{c\} \textbackslash{}d \textasciitilde{}\textasciicircum{}\#\&"
    )


# ---- what cannot be drawn


def test_what_cannot_be_drawn_is_said(small_store, steps_store, tmp_path):
    bare = make_store(tmp_path / "bare", poses=False, subjects=2, frames=4, heads=1)
    for draw in (figures.figure1, figures.filmstrip):
        with pytest.raises(UserError, match="without poses"):
            draw(bare)
    with pytest.raises(UserError, match=r"step 0 only.*at least 2"):
        figures.evolution(small_store)
    with pytest.raises(UserError, match="without predictions"):
        figures.confusion(steps_store, run="training")
    with pytest.raises(UserError, match="name the class"):
        figures.difference(small_store)
    with pytest.raises(UserError, match="compared with itself"):
        figures.difference(small_store, "reading", "A011")
    with pytest.raises(UserError, match="reading"):
        figures.heads(small_store, "redaing")
    with pytest.raises(UserError, match="no head 9"):
        figures.subjects(small_store, head=9)
    with pytest.raises(UserError, match="did you mean ieee"):
        figures.model(small_store, venue="ieeee")
    with pytest.raises(UserError, match="1 or 2 columns"):
        figures.model(small_store, columns=3)


def test_heads_that_do_not_fit_a_column_are_refused(tmp_path):
    store = make_store(tmp_path / "store", heads=8, layers=1, subjects=2, frames=4)
    with pytest.raises(UserError, match="8 heads do not fit beside each other"):
        figures.figure5(store, venue="cvpr", columns=1)


# ---- maps as images


@pytest.mark.parametrize("kind", ["heads", "model", "subjects", "difference", "rollout"])
def test_maps_are_images_of_one_pixel_per_cell(small_store, tmp_path, kind):
    figure = KINDS[kind](small_store)
    maps = [image for axes in figure.axes for image in axes.images]
    path = figures.save_figure(figure, tmp_path / "drawn.svg")
    drawn = path.read_text()
    assert len(drawn) < 150_000
    assert drawn.count("<path") + drawn.count("<use") < 500
    sizes = [
        Image.open(io.BytesIO(base64.b64decode(code))).size
        for code in re.findall(r'xlink:href="data:image/png;base64,([^"]+)"', drawn)
    ]
    assert sorted(sizes) == sorted(image.get_array().shape[::-1] for image in maps)
    assert drawn.count("image-rendering:crisp-edges;image-rendering:pixelated") == len(maps)
    assert "<text" in drawn
    pdf = figures.save_figure(figure, tmp_path / "drawn.pdf")
    found = [image.image.size for page in PdfReader(pdf).pages for image in page.images]
    assert sorted(found) == sorted(sizes)

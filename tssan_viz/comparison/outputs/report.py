"""A comparison as one HTML page that needs nobody: no script, no request, labels are text."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Hashable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from tssan_viz.comparison.further import is_p
from tssan_viz.comparison.words import counted, decimals, format_p
from tssan_viz.version import VERSION

if TYPE_CHECKING:
    from tssan_viz.comparison.comparison import Comparison
    from tssan_viz.comparison.further import Analysis

# Maps are shown of so many heads, the strongest first.
_MAPS = 8

_POLICY = (
    "default-src 'none'; img-src data:; style-src 'unsafe-inline'; base-uri 'none'; "
    "form-action 'none'"
)

_STYLE = """
:root { color-scheme: light dark; --ink: #1b1f24; --faint: #5a6472; --line: #d9dee5;
  --page: #ffffff; --card: #f5f7fa; --mark: #0b62a8; --soft: #d6e8f7; }
@media (prefers-color-scheme: dark) { :root { --ink: #e8ebef; --faint: #a3adba; --line: #39414c;
  --page: #16191e; --card: #1f242b; --mark: #6cb8f5; --soft: #1d3a52; } }
* { box-sizing: border-box; }
html { background: var(--page); }
body { margin: 0 auto; max-width: 1080px; padding: 28px 20px 60px; color: var(--ink);
  font: 15px/1.5 system-ui, sans-serif; }
h1 { font-size: 1.55rem; line-height: 1.25; margin: 0 0 6px; overflow-wrap: anywhere; }
h2 { font-size: 1.1rem; margin: 34px 0 8px; }
h3 { font-size: .95rem; margin: 0 0 8px; }
p { margin: 6px 0; max-width: 75ch; overflow-wrap: anywhere; }
.facts { color: var(--faint); font-size: .9rem; }
.answer { background: var(--soft); border-radius: 8px; padding: 12px 16px; margin: 16px 0; }
.answer p { max-width: none; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: .86rem; font-variant-numeric: tabular-nums; }
th, td { padding: 3px 10px 3px 0; text-align: right; white-space: nowrap;
  border-bottom: 1px solid var(--line); }
th { color: var(--faint); font-weight: 600; }
td.word, th.word { text-align: left; }
tr.found td { font-weight: 650; color: var(--mark); }
.range { display: block; width: 190px; height: 16px; }
.range line.zero { stroke: var(--faint); stroke-width: 1; }
.range line.bar { stroke: var(--faint); stroke-width: 2; }
.range circle { fill: var(--page); stroke: var(--faint); stroke-width: 1.5; }
tr.found .range line.bar { stroke: var(--mark); }
tr.found .range circle { fill: var(--mark); stroke: var(--mark); }
.cards { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 490px), 1fr));
  gap: 14px; }
.card { background: var(--card); border-radius: 8px; padding: 12px; }
.maps { display: flex; gap: 10px; }
figure { margin: 0; flex: 1 1 0; min-width: 0; }
figure img { width: 100%; image-rendering: pixelated; background: #fff; display: block;
  aspect-ratio: 1; border-radius: 3px; }
figcaption { font-size: .78rem; color: var(--faint); margin-top: 4px; overflow-wrap: anywhere;
  line-height: 1.3; }
.notes { color: var(--faint); font-size: .88rem; padding-left: 18px; }
.notes li { margin: 3px 0; max-width: 85ch; overflow-wrap: anywhere; }
.matrix td, .matrix th { padding: 2px 5px; font-size: .76rem; border: 0; }
.matrix td { color: #111; text-align: center; }
.matrix th { max-width: 130px; overflow: hidden; text-overflow: ellipsis; }
.matrix thead th { writing-mode: vertical-rl; transform: rotate(180deg); max-height: 130px; }
footer { margin-top: 40px; color: var(--faint); font-size: .82rem;
  border-top: 1px solid var(--line); padding-top: 10px; }
@media (max-width: 600px) { body { padding: 16px 12px 40px; } .maps { gap: 6px; }
  h1 { font-size: 1.25rem; } }
"""

_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>{style}</style>
</head>
<body>
<main>
{body}
</main>
<footer>{footer}</footer>
</body>
</html>
"""


def report(comparison: Comparison, analyses: Sequence[Analysis] = ()) -> str:
    """Return a stand-alone page: the answer, the table, mean maps, and further analyses.

    Its Content-Security-Policy allows no script and no address; what comes from data is escaped.

    Parameters
    ----------
    comparison
        From `tssan_viz.compare`.
    analyses
        From `tssan_viz.comparison.further.analyse`.
    """
    body = [
        f"<h1>{_text(comparison.title)}</h1>",
        f'<p class="facts">{_text(_facts(comparison))}</p>',
        _answer(comparison),
        _section("Every layer and head", _explained(comparison) + _main_table(comparison)),
        _maps(comparison, analyses),
        *_context(comparison),
        *[_analysis(analysis) for analysis in analyses],
        _section("Notes", _notes(comparison.notes)) if comparison.notes else "",
    ]
    of = f"store {comparison.store} · run {comparison.run} · metric {comparison.metric}"
    return bare_page(comparison.title, body, of=of)


def bare_page(title: str, body: Sequence[str], *, of: str) -> str:
    """Return a stand-alone page without script or requests.

    Parameters
    ----------
    title
        Its title, as text.
    body
        Its parts, as HTML; empty ones are left out.
    of
        What it is made of, as text, for its foot.
    """
    return _PAGE.format(
        policy=html.escape(_POLICY).replace("&#x27;", "'"),
        title=_text(title),
        style=_STYLE,
        body="\n".join(part for part in body if part),
        footer=_text(f"tssan-viz {VERSION} · {of}"),
    )


def fragment(comparison: Comparison) -> str:
    """Return the answer and the table for a notebook, with plain markup."""
    shown = comparison.table.round(4).to_html(index=False, na_rep="—", border=0)
    said = "".join(f"<p>{_text(sentence)}</p>" for sentence in comparison.summary)
    return f"<div><strong>{_text(comparison.title)}</strong>{said}{shown}</div>"


def _text(value: object) -> str:
    return html.escape(str(value))


def _section(title: str, content: str) -> str:
    return f"<section><h2>{_text(title)}</h2>{content}</section>"


def _facts(comparison: Comparison) -> str:
    split = "no split" if comparison.split is None else f"split {comparison.split}"
    facts = [
        counted(len(comparison.subjects), "subject"),
        counted(comparison.n_samples, "video"),
        split,
        f"run {comparison.run}",
        f"similarity {comparison.metric}",
    ]
    if comparison.accuracy is not None:
        facts.insert(2, str(comparison.accuracy).replace("of them", "of the videos"))
    return " · ".join(facts)


def _answer(comparison: Comparison) -> str:
    said = "".join(f"<p>{_text(sentence)}</p>" for sentence in comparison.summary)
    return f'<div class="answer">{said}</div>'


def _explained(comparison: Comparison) -> str:
    level = f"{1 - comparison.alpha:.0%}"
    return (
        '<p class="facts">W: similarity of two maps, of two subjects, that have in common what is '
        "asked about; B: that have it not; Δ = W − B with its "
        f"{level} jackknife interval over subjects; g: Hedges’ g of the subjects’ differences; "
        "p: of this head alone; p max-T and q: over all lines. Marked: p max-T ≤ "
        f"{comparison.alpha:g}.</p>"
    )


def _main_table(comparison: Comparison) -> str:
    table = comparison.table
    ends = table[["low", "high", "delta"]].to_numpy(float)
    ends = ends[np.isfinite(ends)]
    low, high = (min(ends.min(), 0), max(ends.max(), 0)) if len(ends) else (0.0, 1.0)
    other = "other_head" in table
    digits = decimals(table["delta"])
    heads = ["layer", "head", *(["other head"] if other else []), "W", "B", "Δ", "interval", ""]
    heads += ["g", "p", "p max-T", "q"]
    rows = []
    for line in table.to_dict(orient="records"):
        found = line["p_max_t"] <= comparison.alpha
        interval = (
            "—"
            if line["low"] != line["low"]
            else f"{line['low']:+.{digits}f} to {line['high']:+.{digits}f}"
        )
        cells = [
            str(line["layer"]),
            str(line["head"]),
            *([str(line["other_head"])] if other else []),
            _number(line["W"], f".{digits}f"),
            _number(line["B"], f".{digits}f"),
            _number(line["delta"], f"+.{digits}f"),
            interval,
            _range(line, low, high),
            _number(line["hedges_g"], ".2f"),
            *(format_p(line[name]) for name in ("p", "p_max_t", "q")),
        ]
        marked = ' class="found"' if found else ""
        rows.append(f"<tr{marked}>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>")
    header = "".join(f"<th>{_text(name)}</th>" for name in heads)
    return (
        f'<div class="scroll"><table><thead><tr>{header}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table></div>"
    )


def _range(line: dict[Hashable, Any], low: float, high: float) -> str:
    """Draw Δ and its interval on one scale for all lines."""
    if line["delta"] != line["delta"]:
        return ""
    width = high - low or 1.0

    def x(value: float) -> str:
        return f"{6 + 178 * (value - low) / width:.1f}"

    bar = ""
    if line["low"] == line["low"]:
        bar = f'<line class="bar" x1="{x(line["low"])}" x2="{x(line["high"])}" y1="8" y2="8"/>'
    return (
        '<svg class="range" viewBox="0 0 190 16" aria-hidden="true">'
        f'<line class="zero" x1="{x(0)}" x2="{x(0)}" y1="0" y2="16"/>{bar}'
        f'<circle cx="{x(line["delta"])}" cy="8" r="3.5"/></svg>'
    )


def _number(value: Any, form: str = ".3f") -> str:
    if value is None or value != value:
        return "—"
    return format(value, form)


def _notes(notes: Sequence[str]) -> str:
    return '<ul class="notes">' + "".join(f"<li>{_text(note)}</li>" for note in notes) + "</ul>"


# ---- maps


def _maps(comparison: Comparison, analyses: Sequence[Analysis]) -> str:
    """Show the mean maps of the strongest heads, and their difference where there are two."""
    table = comparison.table.dropna(subset=["delta"])
    if table.empty:
        return ""
    order = table.sort_values(["p_max_t", "delta"], ascending=[True, False], kind="stable")
    difference = next((a.result for a in analyses if a.name == "difference"), None)
    masks: dict[tuple[int, int], NDArray[np.bool_]] = {}
    if difference is not None and difference.tested:
        sites = zip(difference.layers, difference.heads, strict=True)
        masks = dict(zip(sites, difference.significant, strict=True))
    cards = []
    for line in order.head(_MAPS).to_dict(orient="records"):
        layer, head = int(line["layer"]), int(line["head"])
        maps = comparison.group_maps(layer, head)
        cards.append(_card(comparison, layer, head, maps, masks.get((layer, head))))
    text = (
        "Mean maps over subjects, each weighing the same; rows are query frames from above, "
        "columns key frames from the left; the same scale for all maps of a card."
    )
    if masks:
        text += (
            " In the difference, cells with p max-T ≤ "
            f"{comparison.alpha:g} over all maps are in full colour, others pale."
        )
    return _section(
        "Mean maps", f'<p class="facts">{_text(text)}</p><div class="cards">{"".join(cards)}</div>'
    )


def _card(
    comparison: Comparison,
    layer: int,
    head: int,
    maps: NDArray[np.float32],
    significant: NDArray[np.bool_] | None,
) -> str:
    names = comparison.side_names
    shown = maps[:4]
    top = float(np.nanmax(shown))
    figures = [
        _figure(one, "viridis", 0.0, top, f"{name} (0 to {top:.3f})")
        for one, name in zip(shown, names, strict=False)
    ]
    if len(maps) == 2:
        difference = maps[0] - maps[1]
        most = float(np.nanmax(np.abs(difference))) or 1e-6
        words = f"difference (red: more in the first; ±{most:.3f})"
        if significant is not None:
            words += f", {int(significant.sum())} cells differ"
        figures.append(_figure(difference, "RdBu_r", -most, most, words, significant))
    title = f"layer {layer} head {head}"
    return (
        f'<div class="card"><h3>{_text(title)}</h3><div class="maps">{"".join(figures)}</div></div>'
    )


def _figure(
    values: NDArray[np.floating],
    colours: str,
    low: float,
    high: float,
    caption: str,
    full: NDArray[np.bool_] | None = None,
) -> str:
    from matplotlib import colormaps
    from matplotlib.image import imsave

    scaled = (np.asarray(values, float) - low) / (high - low or 1.0)
    pixels = colormaps[colours](np.clip(scaled, 0, 1))
    if full is not None:
        pixels[..., 3] = np.where(full, 1.0, 0.35)
    buffer = io.BytesIO()
    imsave(buffer, (pixels * 255).round().astype(np.uint8), format="png")
    source = base64.b64encode(buffer.getvalue()).decode("ascii")
    return (
        f'<figure><img src="data:image/png;base64,{source}" alt="{_text(caption)}">'
        f"<figcaption>{_text(caption)}</figcaption></figure>"
    )


# ---- what stands around the answer


def _context(comparison: Comparison) -> list[str]:
    """Show neighbours and views of a class, or groups and their similarities."""
    sections = []
    neighbours = getattr(comparison, "neighbours", None)
    if neighbours is not None and len(neighbours) > 1:
        shown = neighbours
        if len(neighbours) > 12:
            shown = pd.concat([neighbours.head(6), neighbours.tail(6)])
        sections.append(
            _section(
                "Nearest and farthest classes",
                '<p class="facts">B with each class alone, averaged over the heads.</p>'
                + table_html(shown),
            )
        )
    views = getattr(comparison, "views", None)
    if views is not None and len(views):
        sections.append(
            _section(
                "Across subjects and across views",
                '<p class="facts">Mean similarity over all pairs of single maps of the class: of '
                "two subjects seen by the same camera or by two, and of one subject.</p>"
                + table_html(views),
            )
        )
    between = getattr(comparison, "between", None)
    if between is not None:
        described = table_html(comparison.groups)  # type: ignore[attr-defined]
        matrix = matrix_html(list(between.index), between.to_numpy(float))
        sections.append(
            _section(
                "The groups",
                described
                + '<p class="facts">Similarity of each two groups, averaged over the heads.</p>'
                + matrix,
            )
        )
    return sections


def _analysis(analysis: Analysis) -> str:
    content = ""
    if analysis.name == "matrix" and analysis.result is not None:
        result = analysis.result
        order = result.order
        names = [result.names[i] for i in order]
        if len(names) <= 64:
            content += matrix_html(names, result.similarity[np.ix_(order, order)])
    if analysis.table is not None:
        content += table_html(analysis.table)
    return _section(analysis.title, content + (_notes(analysis.notes) if analysis.notes else ""))


def table_html(frame: pd.DataFrame) -> str:
    """Write a table; numbers with three digits, p-values as they are written everywhere."""
    words = [frame[name].dtype.kind not in "iufb" for name in frame]

    def cell(name: str, value: Any) -> str:
        if value is None or (isinstance(value, float) and value != value):
            return "—"
        if isinstance(value, float):
            if is_p(name):
                return format_p(value)
            return f"{value:.3f}"
        return _text(value)

    header = "".join(
        f"<th{' class=word' if word else ''}>{_text(str(name).replace('_', ' '))}</th>"
        for name, word in zip(frame, words, strict=True)
    )
    lines = "".join(
        "<tr>"
        + "".join(
            f"<td{' class=word' if word else ''}>{cell(str(name), line[name])}</td>"
            for name, word in zip(frame, words, strict=True)
        )
        + "</tr>"
        for line in frame.to_dict(orient="records")
    )
    return (
        f'<div class="scroll"><table><thead><tr>{header}</tr></thead>'
        f"<tbody>{lines}</tbody></table></div>"
    )


def matrix_html(names: Sequence[str], values: NDArray[np.float64]) -> str:
    """Write a square of similarities, each cell coloured by its value and holding it."""
    from matplotlib import colormaps

    there = values[np.isfinite(values)]
    if not len(there):
        return ""
    low, high = float(there.min()), float(there.max())
    colour = colormaps["YlGnBu"]
    digits = 2 if len(names) > 12 else 3

    def cell(value: float) -> str:
        if value != value:
            return "<td></td>"
        # The darkest colours are left out, so that black digits stay legible.
        place = 0.6 * (value - low) / (high - low or 1.0)
        r, g, b = (round(255 * part) for part in colour(place)[:3])
        return f'<td style="background:rgb({r},{g},{b})">{value:.{digits}f}</td>'

    header = "".join(f'<th title="{_text(name)}">{_text(name)}</th>' for name in names)
    lines = "".join(
        f'<tr><th class="word" title="{_text(name)}">{_text(name)}</th>'
        + "".join(cell(value) for value in line)
        + "</tr>"
        for name, line in zip(names, values, strict=True)
    )
    return (
        f'<div class="scroll"><table class="matrix"><thead><tr><th></th>{header}</tr></thead>'
        f"<tbody>{lines}</tbody></table></div>"
    )

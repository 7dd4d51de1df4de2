"""What attention adds up to over the layers: of which input frames each frame is made."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib
import numpy as np
from numpy.typing import NDArray

from tssan_viz.errors import UserError
from tssan_viz.figures.means import Asked, MeanMap, ask, map_table
from tssan_viz.figures.sheet import (
    BAR,
    FOOT,
    GAP,
    LOWER,
    MARGIN,
    NAME,
    TITLE,
    Scale,
    Sheet,
    colour_bar,
    end_ticks,
    fit,
    foot,
    map_panel,
    weight_scale,
)
from tssan_viz.figures.style import FAINT, RC, PaperFigure, paper_width
from tssan_viz.selection import Selection
from tssan_viz.store import AttentionStore
from tssan_viz.store.schema import decode

# All sizes in inches.
_LEFT = 0.46
_CURVE = 0.55


def rollout(
    source: AttentionStore | Selection,
    class_name: str | int | Sequence[str | int] | None = None,
    *,
    subject: int | Sequence[int] | None = None,
    person: int = 1,
    run: str | None = None,
    venue: str | None = None,
    columns: int = 2,
) -> PaperFigure:
    """Draw attention rollout after every layer, and what each input frame contributes.

    Rollout is computed for each row and then averaged, each subject weighing the same:
    R_l = Â_l … Â_1 with Â = ½ mean_h A + ½ I (Abnar and Zuidema, ACL 2020), as
    `tssan_viz.evidence.rollout.rollout` does.

    Parameters
    ----------
    source
        A store (its test videos), or a selection.
    class_name
        Of which classes' videos the mean is; default: all.
    subject, person, run
        Whose rows.
    venue, columns
        For which publisher's columns, and over how many.

    Returns
    -------
    PaperFigure
        With caption and numbers.

    Raises
    ------
    UserError
        Nothing fits, maps are not square, or are no probabilities.
    """
    width = paper_width(venue, columns)
    asked = ask(source, class_name, subject=subject, person=person, run=run)
    rows = asked.rows
    sites = rows.store.sites(rows.run)
    sites = sites[(sites["stream"] == rows.stream) & sites["layer"].isin(rows.layers)]
    odd = sites[(sites["query"] != sites["key"]) | (sites["kind"] != "softmax")]
    if len(odd):
        line = odd.iloc[0]
        raise UserError(
            f"layer {line['layer']} holds {line['kind']} maps of {line['query']} × {line['key']}; "
            "rollout multiplies square maps whose rows are probabilities (softmax)"
        )
    if list(rows.layers) != list(range(1, len(rows.layers) + 1)):
        raise UserError(
            "rollout multiplies all layers from the first on; select no layer before it"
        )
    means = _mean_rollout(rows)
    # The residual connection fills the diagonal; beside it everything else would be one colour.
    beside = [one[~np.eye(len(one), dtype=bool)] for one in means if len(one) > 1]
    scale = weight_scale(means, within=beside or None)
    with matplotlib.rc_context(RC):
        figure = _draw(asked, means, scale, width)
    maps = [MeanMap(n, 0, one) for n, one in zip(rows.layers, means, strict=True)]
    figure.table = map_table(maps, rows, class_name=asked.what).drop(columns="head")
    figure.caption = (
        f"Attention rollout after each of {len(means)} layers, {asked.what}: of which input frames "
        "(columns) each frame (rows) is made, R_l = Â_l … Â_1 with Â = ½ mean over heads of A + "
        "½ I (Abnar and Zuidema 2020), computed for each row and averaged, each subject weighing "
        "the same. Below, the mean over frames; dashed: an even share. One colour scale "
        f"for all panels, beyond which the diagonal goes{scale.said()}. {asked.said()}. "
        "Described, not tested."
    )
    figure.notes = asked.notes
    return figure


def _mean_rollout(rows: Selection) -> list[NDArray[np.float32]]:
    """Return the mean rollout (q, s) after each layer, each subject weighing the same."""
    import torch

    from tssan_viz.evidence.rollout import rollout as multiplied

    sums: dict[object, list[NDArray]] = {}
    counts: dict[object, int] = {}
    for part, stored in rows.iter_maps(256):
        maps = torch.from_numpy(decode(stored))  # (r, l, h, q, s)
        layers = multiplied([maps[:, n] for n in range(maps.shape[1])])
        who = part["subject"].astype(object).where(part["subject"].notna(), None).to_numpy()
        for subject in dict.fromkeys(who):
            mine = torch.from_numpy(np.array([one == subject for one in who]))
            added = [one[mine].double().sum(dim=0).numpy() for one in layers]
            before = sums.get(subject)
            sums[subject] = (
                added if before is None else [a + b for a, b in zip(before, added, strict=True)]
            )
            counts[subject] = counts.get(subject, 0) + int(mine.sum())
    known = [subject for subject in sums if subject is not None] or list(sums)
    return [
        np.mean([sums[subject][n] / counts[subject] for subject in known], axis=0).astype(
            np.float32
        )
        for n in range(len(rows.layers))
    ]


def _draw(
    asked: Asked, means: list[NDArray[np.float32]], scale: Scale, width: float
) -> PaperFigure:
    room = width - 2 * MARGIN - _LEFT - BAR
    side = fit(len(means), room, GAP, 0.36, 1.8, "layers")
    sheet = Sheet(TITLE + NAME + side + 0.07 + _CURVE + LOWER + FOOT, width)
    sheet.title(f"{asked.what}, attention rollout", TITLE / 2)
    used = _LEFT + len(means) * (side + GAP) + BAR
    top, left = TITLE + NAME, (width - used) / 2 + _LEFT
    high = max(float(one.mean(axis=0).max()) for one in means)
    for n, one in enumerate(means):
        x = left + n * (side + GAP)
        t = len(one)
        sheet.text(x + side / 2, TITLE + NAME / 2, f"layer {n + 1}")
        axes = sheet.axes(x, top, side, side, f"rollout {n + 1}")
        map_panel(axes, one, scale)
        end_ticks(axes, (0, t - 1), (0, t - 1), below=False, beside=n == 0)
        lower = sheet.axes(x, top + side + 0.07, side, _CURVE, f"share {n + 1}", on=True)
        lower.bar(np.arange(t), one.mean(axis=0), width=1.0, color="#31688e", linewidth=0)
        lower.axhline(1 / t, color=FAINT, linewidth=0.6, dashes=(3, 2))
        lower.set(xlim=(-0.5, t - 0.5), ylim=(0, 1.1 * high))
        lower.set_xticks([0, t - 1])
        lower.get_xticklabels()[0].set_horizontalalignment("left")
        lower.get_xticklabels()[-1].set_horizontalalignment("right")
        lower.yaxis.set_major_locator(matplotlib.ticker.MaxNLocator(2))
        lower.spines[["top", "right"]].set_visible(False)
        lower.tick_params(labelleft=n == 0)
        if n == 0:
            axes.set_ylabel("frame", labelpad=1)
            lower.set_ylabel("share", labelpad=1)
            lower.set_xlabel("input frame", labelpad=1)
    bar = left + len(means) * (side + GAP) + 0.06
    colour_bar(sheet, scale, bar, top, max(side, 0.8), "share")
    foot(sheet, asked.said() + scale.said())
    return sheet.figure

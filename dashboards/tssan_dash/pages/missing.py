"""What a page shows of a run whose videos say too little of themselves."""

from __future__ import annotations

from urllib.parse import urlencode

import dash_mantine_components as dmc

from tssan_dash.pages.parts import section
from tssan_dash.recordings import Recordings
from tssan_dash.routes import below_prefix
from tssan_viz.errors import UserError

# What may be recorded of a video, and how a person calls it.
_SAID = {"label": "class", "subject": "subject", "camera": "camera", "predicted": "prediction"}


def too_little_said(recordings: Recordings, run: str) -> dmc.Paper | None:
    """Return what is missing of a run to compare its videos, None where nothing is.

    Parameters
    ----------
    recordings
        Of the store.
    run
        Its name.

    Raises
    ------
    UserError
        The run holds no video yet.
    """
    samples = recordings.samples(run)
    if samples.empty:
        raise UserError(f"The run {run!r} holds no video yet.")
    if (samples["label"].notna() & samples["subject"].notna()).any():
        return None
    lines = []
    for column, name in _SAID.items():
        there = int(samples[column].notna().sum())
        needed = column in ("label", "subject") and not there
        lines.append(
            [
                name.capitalize(),
                f"of {there:,} of {len(samples):,} videos" if there else "not recorded",
                "needed" if needed else "",
            ]
        )
    address = {"run": run} if len(recordings.runs()) > 1 else {}
    suffix = f"?{urlencode(address)}" if address else ""
    return section(
        "These videos cannot be compared yet",
        dmc.Table(
            dmc.TableTbody(
                [
                    dmc.TableTr(
                        [dmc.TableTd(name), dmc.TableTd(there), dmc.TableTd(needed, fw=600)]
                    )
                    for name, there, needed in lines
                ]
            ),
            maw=480,
            mb="md",
        ),
        dmc.Text("Say of the videos what they are while they are recorded:", size="sm", mb="xs"),
        dmc.Code(
            "recorder.samples(sample=names, label=labels, subject=subjects)", block=True, mb="md"
        ),
        dmc.Group(
            [
                dmc.Text("What can be looked at as it is:", size="sm"),
                dmc.Anchor("each video", href=below_prefix("/explore") + suffix, size="sm"),
                dmc.Anchor("all heads", href=below_prefix("/") + suffix, size="sm"),
                dmc.Anchor("the steps", href=below_prefix("/training") + suffix, size="sm"),
            ],
            gap="sm",
        ),
        words="Maps of one class are compared between different subjects, so that of a video both "
        f"have to be known. The run {run!r} says:",
        id="too-little-said",
    )

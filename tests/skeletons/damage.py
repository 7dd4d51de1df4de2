"""Valid files, damaged: for tests that a reader answers them with its own error or not at all."""

from __future__ import annotations

from hypothesis import strategies as st

_SPLINTERS = st.sampled_from(
    [b"", b"-", b" ", b"\n", b"\r\n", b"[", b"{", b"null", b"nan", b"1e999", b"9" * 30, b"\xff" * 4]
) | st.binary(max_size=6)


@st.composite
def damaged(draw: st.DrawFn, whole: bytes) -> bytes:
    """Replace a few stretches by splinters, perhaps cut the end off."""
    data = whole
    for _ in range(draw(st.integers(0, 4))):
        # Half of the damage goes to the head, where the counts and headers are.
        reach = draw(st.sampled_from([min(len(data), 200), len(data)]))
        at = draw(st.integers(0, reach))
        data = data[:at] + draw(_SPLINTERS) + data[at + draw(st.integers(0, 12)) :]
    return data[: draw(st.none() | st.integers(0, len(data)))]

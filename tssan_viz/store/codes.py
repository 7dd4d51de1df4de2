"""How the values of a map are written down: float16, or 1 or 2 bytes of a square root.

``float16``
    As it is; 2 bytes a value.
``compact``
    For probabilities: 8 bits of √(p / the row's maximum); 1 byte a value. Its steps are finest
    where p is small, which is what similarities of spread-out attention need. The maximum itself
    is not kept: a row's values sum to 1, so their ratios say everything.
``precise``
    For probabilities: 16 bits of √p; 2 bytes a value.

After decoding ``compact`` and ``precise``, rows are scaled to sum to 1; a row of zeros (a query
whose keys are all masked) stays one. Sites that are no softmax are kept in float16 in any case.

What each costs, as `benchmarks/store.py` measures it (4,096 generated maps of 32 × 32, from
spread-out to sharp; the divergence is Jensen and Shannon's between pairs of maps, row by row):

========  =====  ================  =======================================
code      bytes  largest error, p  divergence, relative error, 99 % under
========  =====  ================  =======================================
float16       2           1.8e-4   0.03 %
compact       1           2.5e-3   0.5 %
precise       2           1.5e-5   0.007 %
========  =====  ================  =======================================
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np
import pyarrow as pa

from tssan_viz.errors import UserError

if TYPE_CHECKING:
    import torch

Code = Literal["float16", "compact", "precise"]
CODES: tuple[Code, ...] = ("float16", "compact", "precise")

_EIGHT_BITS = 255
_SIXTEEN_BITS = 65535


def checked_code(code: str) -> Code:
    """Return a code's name.

    Raises
    ------
    UserError
        There is no such code.
    """
    for known in CODES:
        if code == known:
            return known
    raise UserError(f"there is no code {code!r}; there are {', '.join(CODES)}")


def code_of(run_code: Code, kind: str) -> Code:
    """Return the code of a site's maps in a run: only probabilities are kept as square roots."""
    return run_code if kind == "softmax" else "float16"


def code_dtype(code: Code) -> np.dtype:
    """Return the type of a stored value."""
    return np.dtype({"float16": np.float16, "compact": np.uint8, "precise": np.uint16}[code])


def column_type(code: Code, query: int, key: int) -> pa.DataType:
    """Return the type of the column that holds one head's maps."""
    return pa.list_(pa.from_numpy_dtype(code_dtype(code)), query * key)


def encode(maps: np.ndarray, code: Code) -> np.ndarray:
    """Return maps as lines to store.

    Parameters
    ----------
    maps : float16 or float32 (r, q, s)
        One head's maps.
    code
        Its code.

    Returns
    -------
    float16, uint8 or uint16 (r, q·s)
    """
    r = len(maps)
    if code == "float16":
        return np.array(maps, np.float16).reshape(r, -1)
    p = np.maximum(maps.astype(np.float32, copy=False), 0)
    if code == "precise":
        return np.rint(np.sqrt(np.minimum(p, 1)) * _SIXTEEN_BITS).astype(np.uint16).reshape(r, -1)
    maxima = p.max(-1, keepdims=True)
    share = np.divide(p, maxima, out=np.zeros_like(p), where=maxima > 0)
    return np.rint(np.sqrt(share) * _EIGHT_BITS).astype(np.uint8).reshape(r, -1)


def decode_lines(lines: np.ndarray, code: Code, query: int, key: int) -> np.ndarray:
    """Return stored lines as maps.

    Returns
    -------
    float16 (r, q, s) for the code ``float16``, float32 (r, q, s) for the others
    """
    r = len(lines)
    if code == "float16":
        return lines.reshape(r, query, key)
    root = lines.reshape(r, query, key).astype(np.float32)
    p = np.square(root, out=root)
    total = p.sum(-1, keepdims=True)
    return np.divide(p, total, out=p, where=total > 0)


def decode_tensor(stored: torch.Tensor, code: Code) -> torch.Tensor:
    """Return stored values as maps, computed on the device on which they are.

    What is sent to a device is then a half or a quarter of the maps' bytes, and the cast is done
    where it is fast.

    Parameters
    ----------
    stored : float16, uint8 or uint16 (…, s)
        As stored: rows over keys, last.
    code
        Their code.

    Returns
    -------
    float32 (…, s), on the same device
        As `decode_lines` gives them, to rounding.
    """
    import torch

    if code == "float16":
        return stored.float()
    if code == "precise":
        # Few operations know 16 bits without a sign.
        root = stored.view(torch.int16).float()
        root = torch.where(root < 0, root + (_SIXTEEN_BITS + 1), root)
    else:
        root = stored.float()
    p = root.square()
    total = p.sum(-1, keepdim=True)
    return p / torch.where(total > 0, total, torch.ones_like(total))

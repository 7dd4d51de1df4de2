"""What a writer is given, checked: rows become a table, maps and measures arrays of their sizes."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tssan_viz.errors import UserError
from tssan_viz.store.catalogue import Catalogue
from tssan_viz.store.schema import MEASURES, ROW_COLUMNS, Site, named, row_id, row_sums

ROW_SUM_TOLERANCE = 1e-3

OWN_COLUMNS = ("row_id", "run", "checksum", "rank")
# What a column of further metadata may not be called: the table `maps` has these besides the rows'.
_TAKEN = ("site", "stream", "layer", "head", "heads", "query", "key", "kind")
_DEFAULTS: dict[str, Any] = {"step": 0, "phase": "inference", "segment": 1}


class Incoming:
    """Checks what one rank of a run is given.

    Parameters
    ----------
    run, sites, catalogue, rank, code
        As the writer's.

    Attributes
    ----------
    row_types : dict
        The columns that the store's rows have, with their types; further metadata add to them.
    """

    def __init__(
        self, run: str, sites: tuple[Site, ...], catalogue: Catalogue, rank: int, code: str
    ) -> None:
        self._run = run
        self._sites = sites
        self._catalogue = catalogue
        self._rank = rank
        self._code = code
        self.row_types: dict[str, pa.DataType] = {}

    def rows(self, rows: Mapping[str, Any]) -> pa.Table:
        """Return rows as a table with all columns but the checksum."""
        allowed = [name for name in ROW_COLUMNS if name not in OWN_COLUMNS]
        further = {name: value for name, value in rows.items() if name not in allowed}
        for name in further:
            self._check_new_name(name, allowed)
        if "sample" not in rows:
            raise UserError("rows need the column 'sample': which video each row comes from")
        given = {**_DEFAULTS, **{k: v for k, v in rows.items() if v is not None}}
        lengths = {name: len(v) for name, v in given.items() if _is_column(v)}
        if len(set(lengths.values())) > 1:
            raise UserError(f"columns differ in length: {lengths}")
        count = next(iter(lengths.values()), 1)
        columns = {}
        for name in allowed:
            value = given.get(name)
            columns[name] = _arrow(name, value if _is_column(value) else [value] * count)
        for name in ("sample", "step", "phase", "segment"):
            if columns[name].null_count:
                raise UserError(f"column {name!r} has no value in {columns[name].null_count} rows")
        self._complete_classes(columns, count)
        right = pc.equal(columns["predicted"], columns["label"])
        columns["correct"] = pc.coalesce(columns["correct"], right)
        ids = [
            row_id(self._run, *key)
            for key in zip(
                *(
                    columns[name].to_pylist()
                    for name in ("step", "phase", "sample", "segment", "person")
                ),
                strict=True,
            )
        ]
        columns = {
            "row_id": pa.array(ids, pa.int64()),
            "run": pa.array([self._run] * count),
            **columns,
            "rank": pa.array(np.full(count, self._rank, np.int16)),
        }
        for name in further:
            value = given.get(name)
            column = self._further(name, value if _is_column(value) else [value] * count)
            if column is not None:
                columns[name] = column
        return pa.table(columns)

    def _check_new_name(self, name: str, allowed: list[str]) -> None:
        """Refuse what is more likely a slip of the pen, or means something else, than metadata."""
        near = difflib.get_close_matches(name, allowed, n=1, cutoff=0.8)
        taken = {*ROW_COLUMNS, *_TAKEN}
        if near or name.lower() in taken or not name.isidentifier():
            hint = f"; did you mean {near[0]!r}?" if near else "."
            raise UserError(
                f"rows have no column {name!r}{hint} Columns are {', '.join(allowed)}; further "
                "ones may have any other name of letters, digits and underscores"
            )

    def _further(self, name: str, values: Any) -> pa.Array | None:
        """Return a column of metadata in the type that the store has for it; None if all null."""
        try:
            column = pa.array(
                values if isinstance(values, np.ndarray) else list(values), from_pandas=True
            )
        except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError) as error:
            raise UserError(f"column {name!r} cannot be stored: {error}") from error
        kind = column.type
        if pa.types.is_null(kind):
            return None
        if pa.types.is_integer(kind):
            wanted = pa.int64()
        elif pa.types.is_floating(kind):
            wanted = pa.float64()
        elif pa.types.is_boolean(kind) or pa.types.is_string(kind):
            wanted = kind
        else:
            raise UserError(
                f"column {name!r} holds {kind}; metadata are whole numbers, numbers, words or "
                "truth values"
            )
        stored = self.row_types.setdefault(name, wanted)
        if stored != wanted and not (stored == pa.float64() and wanted == pa.int64()):
            raise UserError(
                f"column {name!r} holds {wanted} here and {stored} in the store; "
                "give it another name"
            )
        return column.cast(stored)

    def _complete_classes(self, columns: dict[str, pa.Array], count: int) -> None:
        """Take names and codes from the catalogue, or the label from the name."""
        if not self._catalogue.classes:
            return
        labels = columns["label"].to_pylist()
        names = columns["class_name"].to_pylist()
        codes = columns["class_code"].to_pylist()
        for i in range(count):
            given = labels[i] if labels[i] is not None else names[i]
            if given is None:
                continue
            entry = self._catalogue.resolve(given)
            if names[i] is not None and self._catalogue.resolve(names[i]).label != entry.label:
                raise UserError(
                    f"sample {columns['sample'][i].as_py()!r}: label {entry.label} is "
                    f"{entry.name!r} in the catalogue, the class name given is {names[i]!r}"
                )
            labels[i], names[i], codes[i] = entry.label, entry.name, entry.code
        for name, values in (("label", labels), ("class_name", names), ("class_code", codes)):
            columns[name] = _arrow(name, values)

    def _checked_names(self, given: Iterable[str], what: str) -> None:
        due = {site.name for site in self._sites}
        missing = sorted(due - set(given))
        strange = sorted(set(given) - due)
        if missing or strange:
            parts = []
            if missing:
                parts.append(f"nothing came from {named(missing)}")
            if strange:
                parts.append(f"{named(strange)} is no site of this run")
            raise UserError(
                f"{what}: {'; '.join(parts)}. Its sites are {named([s.name for s in self._sites])}"
            )

    def maps(self, maps: Mapping[str, np.ndarray], table: pa.Table) -> dict[str, np.ndarray]:
        """Return the maps (r, h, q, s) of all sites, in the order of the sites."""
        self._checked_names(maps, "maps")
        checked = {}
        for site in self._sites:
            value = np.asarray(maps[site.name])
            expected = (table.num_rows, site.heads, site.query, site.key)
            if value.shape != expected:
                raise UserError(
                    f"maps of {site.name!r} have shape {value.shape}, "
                    f"(r, h, q, s) = {expected} is expected"
                )
            kinds = ("float16",) if self._code == "float16" else ("float16", "float32")
            if value.dtype.name not in kinds:
                raise UserError(
                    f"maps of {site.name!r} are {value.dtype}, {' or '.join(kinds)} is expected"
                )
            if site.kind == "softmax":
                self._check_sums(site, value, table)
            elif not np.isfinite(value).all():
                raise UserError(f"maps of {site.name!r} hold values that are not finite")
            checked[site.name] = value
        return checked

    def _check_sums(self, site: Site, value: np.ndarray, table: pa.Table) -> None:
        sums = row_sums(value)
        # Written so that NaN fails too.
        wrong = ~(np.abs(sums - 1) < ROW_SUM_TOLERANCE)
        if wrong.any():
            # A query whose keys are all masked attends to nothing; a whole map of them is a fault.
            nothing = ~value.any(-1)
            wrong &= ~nothing | nothing.all(-1, keepdims=True)
        if wrong.any():
            r, h, q = np.argwhere(wrong)[0]
            raise UserError(
                f"sample {table['sample'][int(r)].as_py()!r}, site {site.name!r}, "
                f"head {site.numbers[h]}, query frame {q}: the attention sums to "
                f"{sums[r, h, q]:.4f}, not to 1 (tolerance {ROW_SUM_TOLERANCE}); "
                f"{int(wrong.sum())} of {wrong.size} map rows are so. Probabilities are "
                "recorded before dropout; a map that is no softmax needs a site of kind 'signed' "
                "or 'adjacency'"
            )

    def measures(
        self, measures: Mapping[str, Mapping[str, np.ndarray]], count: int
    ) -> dict[str, dict[str, np.ndarray]]:
        """Return the measures (r, h) for each measure's and site's name, as float32."""
        checked: dict[str, dict[str, np.ndarray]] = {}
        for measure, per_site in measures.items():
            if measure in MEASURES.names or not measure.isidentifier():
                raise UserError(f"{measure!r} cannot be the name of a measure")
            self._checked_names(per_site, f"measure {measure!r}")
            checked[measure] = {}
            for site in self._sites:
                value = np.asarray(per_site[site.name], np.float32)
                if value.shape != (count, site.heads):
                    raise UserError(
                        f"measure {measure!r} of {site.name!r} has shape {value.shape}, "
                        f"(r, h) = {(count, site.heads)} is expected"
                    )
                checked[measure][site.name] = value
        return checked


def _is_column(value: object) -> bool:
    return isinstance(value, Iterable) and not isinstance(value, str | bytes)


def _arrow(name: str, column: Any) -> pa.Array:
    wanted = ROW_COLUMNS[name]
    values = column if isinstance(column, np.ndarray) else list(column)
    try:
        return pa.array(values, from_pandas=True).cast(wanted)
    except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError) as error:
        raise UserError(f"column {name!r} cannot be stored as {wanted}: {error}") from error

"""A run in files that others read: Parquet, netCDF, Zarr and .npz, and back again.

netCDF, Zarr and ``.npz`` hold the maps as ``attention`` (row, layer, head, query, key), the
measures (row, layer, head), the rows' columns, and what views draw of the videos. Parquet holds one
line per row × layer × head, for tools that think in tables; it has no place for poses. Each carries
a description (sites, catalogue, what is known of the run), by which `import_run` makes a run of it.
Parquet is written in bounded memory; the others hold the selection's maps once.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import zipfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from tssan_viz.errors import UserError
from tssan_viz.store.catalogue import Catalogue
from tssan_viz.store.schema import Site, StoredSample, decode
from tssan_viz.store.upkeep import RowMeasures, columns_of

if TYPE_CHECKING:
    import xarray

    from tssan_viz.selection import Selection
    from tssan_viz.store.reader import AttentionStore

ENDINGS = (".parquet", ".nc", ".zarr", ".npz")

_KIND = "tssan-viz run"
_MAPS = ("row", "layer", "head", "query", "key")
_SAMPLE_FIELDS = ("label", "class_name", "class_code", "subject", "camera", "duplicate_of")
_ROWS_AT_A_TIME = 256
_LEFT_OUT = ("run", "rank", "checksum", "row_id")


def export(
    selection: Selection, out: Path, progress: Callable[[int, int], None] | None = None
) -> None:
    """Write a selection to a file; its ending says how: .parquet, .nc, .zarr or .npz.

    Parameters
    ----------
    selection
        What to write: rows, layers and heads.
    out
        The file (for .zarr a folder); must not be there yet.
    progress
        Called with the rows done and the rows there are.

    Raises
    ------
    UserError
        The selection is empty, its layers differ in size, the ending is none of these, the file is
        there, or cannot be written; nothing half-written is left.
    """
    if out.suffix not in ENDINGS:
        raise UserError(f"{out}: a run is written as {', '.join(ENDINGS)}, not {out.suffix!r}")
    if out.exists():
        raise UserError(f"{out} is there already; name another file or remove it")
    if not out.parent.is_dir():
        raise UserError(f"{out}: the folder {out.parent} is not there")
    if not len(selection):
        raise UserError(f"there is nothing to write: {selection.empty_because}")
    scratch = out.with_name(f".part-{out.name}")
    try:
        _write(selection, scratch, progress)
        scratch.rename(out)
    except (OSError, RuntimeError) as error:
        # netCDF says less of it than the system does.
        number = getattr(error, "errno", None)
        why = os.strerror(number) if number else f"{error} (is the disk full?)"
        raise UserError(f"{out} cannot be written: {why}") from error
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
        with contextlib.suppress(OSError):
            scratch.unlink(missing_ok=True)


def _write(selection: Selection, out: Path, progress: Callable[[int, int], None] | None) -> None:
    if out.suffix == ".parquet":
        _write_parquet(selection, out, progress)
        return
    data = _dataset(selection, progress)
    if out.suffix == ".npz":
        arrays: dict[str, Any] = _arrays(data)
        np.savez_compressed(out, **arrays)
    elif out.suffix == ".nc":
        # netCDF has no float16; compressed, float32 takes little more.
        data["attention"] = data["attention"].astype(np.float32)
        packed = {"attention": {"zlib": True, "complevel": 1}}
        # Through memory: HDF5 can take the process down where a file of its own cannot grow.
        out.write_bytes(data.to_netcdf(engine="h5netcdf", encoding=packed))
    else:
        data.to_zarr(out, mode="w", consolidated=False, zarr_format=2)


def _description(selection: Selection) -> str:
    store, run = selection.store, selection.run
    sites = [asdict(site) for site in _sites(selection)]
    return json.dumps(
        {
            "kind": _KIND,
            "run": run,
            "created": store.created(run).isoformat(),
            "code": store.stored_code(run),
            "sites": sites,
            "heads": list(selection.heads),
            "catalogue": json.loads(store.stored_catalogue(run).to_json()),
            "info": store.info(run),
        },
        ensure_ascii=False,
    )


def _sites(selection: Selection) -> list[Site]:
    """Return the sites of the selection, with the heads that are selected."""
    stored = selection.store.stored_sites(selection.run)
    by_layer = {site.layer: site for site in stored if site.stream == selection.stream}
    return [
        Site(
            **{
                **asdict(by_layer[layer]),
                "heads": len(selection.heads),
                "numbers": selection.heads,
            }
        )
        for layer in selection.layers
    ]


def _measures(selection: Selection) -> dict[str, np.ndarray]:
    """Return each measure (r, l, h) of the selection."""
    store, run = selection.store, selection.run
    stored = store.stored_sites(run)
    of = RowMeasures(store, run, stored).of(selection.rows())
    by_layer = {site.layer: site for site in stored if site.stream == selection.stream}
    places = {
        site.name: [site.numbers.index(head) for head in selection.heads]
        for site in (by_layer[layer] for layer in selection.layers)
    }
    return {
        measure: np.stack([per_site[name][:, at] for name, at in places.items()], axis=1)
        for measure, per_site in of.items()
    }


def _dataset(selection: Selection, progress: Callable[[int, int], None] | None) -> xarray.Dataset:
    import xarray

    maps = []
    done = 0
    for part, values in selection.iter_maps(_ROWS_AT_A_TIME):
        maps.append(values)
        done += len(part)
        if progress:
            progress(done, len(selection))
    variables: dict[str, Any] = {"attention": (_MAPS, np.concatenate(maps))}
    for measure, values in _measures(selection).items():
        variables[f"measure_{measure}"] = (_MAPS[:3], values)
    frame = selection.rows()
    for name in frame.columns:
        if name not in _LEFT_OUT:
            column = _plain(frame[name])
            if column is not None:
                variables[f"row_{name}"] = ("row", column)
    variables.update(_sample_variables(selection))
    return xarray.Dataset(
        variables,
        coords={"layer": list(selection.layers), "head": list(selection.heads)},
        attrs={"tssan_viz": _description(selection)},
    )


def _plain(column: pd.Series) -> np.ndarray | None:
    """Return a column in a type that every format has: missing numbers NaN, missing words empty."""
    if column.isna().all():
        return None
    if pd.api.types.is_bool_dtype(column.dtype) or pd.api.types.is_numeric_dtype(column.dtype):
        if column.isna().any():
            return column.to_numpy(float, na_value=np.nan)
        return column.to_numpy(np.int8 if pd.api.types.is_bool_dtype(column.dtype) else None)
    return column.fillna("").to_numpy(str)


def _sample_variables(selection: Selection) -> dict[str, Any]:
    """Return what views draw of the videos, padded with NaN to the largest."""
    names = list(dict.fromkeys(selection.rows()["sample"]))
    samples = list(selection.store.stored_samples(selection.run, names))
    if not samples:
        return {}
    variables: dict[str, Any] = {"sample_name": ("sample", np.array([s.sample for s in samples]))}
    for name in _SAMPLE_FIELDS:
        column = _plain(pd.Series([getattr(sample, name) for sample in samples]))
        if column is not None:
            variables[f"sample_{name}"] = ("sample", column)
    for name, dims in {
        "frames": ("segment", "frame"),
        "seconds": ("segment", "frame"),
        "poses": ("person", "segment", "frame", "joint", "coordinate"),
        "present": ("person", "segment"),
    }.items():
        values = [getattr(sample, name) for sample in samples]
        shapes = [value.shape for value in values if value is not None]
        if not shapes:
            continue
        size = tuple(map(max, zip(*shapes, strict=True)))
        padded = np.full((len(samples), *size), np.nan, np.float32)
        lengths = np.zeros((len(samples), len(size)), np.int32)
        for i, value in enumerate(values):
            if value is not None:
                place: tuple[Any, ...] = (i, *(slice(n) for n in value.shape))
                padded[place] = value
                lengths[i] = value.shape
        along = tuple(f"{name}_{dim}" for dim in dims)
        variables[f"sample_{name}"] = (("sample", *along), padded)
        variables[f"sample_{name}_shape"] = (("sample", f"{name}_dimension"), lengths)
    return variables


def _arrays(data: xarray.Dataset) -> dict[str, np.ndarray]:
    arrays = {str(name): data[name].values for name in data.variables}
    return {**arrays, "tssan_viz": np.array(data.attrs["tssan_viz"])}


def _write_parquet(
    selection: Selection, out: Path, progress: Callable[[int, int], None] | None
) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    measures = _measures(selection)
    frame = selection.rows().drop(columns=list(_LEFT_OUT))
    layers, heads = selection.layers, selection.heads
    each = len(layers) * len(heads)
    writer = None
    done = 0
    try:
        for part, maps in selection.iter_maps(_ROWS_AT_A_TIME):
            lines = slice(done, done + len(part))
            table = pa.Table.from_pandas(
                frame.iloc[np.repeat(np.arange(done, done + len(part)), each)],
                preserve_index=False,
            ).replace_schema_metadata()
            table = table.append_column(
                "layer", pa.array(np.tile(np.repeat(layers, len(heads)), len(part)))
            )
            table = table.append_column("head", pa.array(np.tile(heads, len(part) * len(layers))))
            for name, values in measures.items():
                table = table.append_column(name, pa.array(values[lines].reshape(-1)))
            flat = decode(maps).reshape(-1)
            size = maps.shape[3] * maps.shape[4]
            # float32: DuckDB refuses tables with float16.
            table = table.append_column(
                "attention", pa.FixedSizeListArray.from_arrays(pa.array(flat), size)
            )
            if writer is None:
                described = table.schema.with_metadata({"tssan_viz": _description(selection)})
                writer = pq.ParquetWriter(out, described, compression="zstd")
            writer.write_table(table.replace_schema_metadata(described.metadata))
            done += len(part)
            if progress:
                progress(done, len(selection))
    finally:
        if writer is not None:
            writer.close()


# ---- and back


@dataclass(frozen=True, eq=False)
class ExportedRun:
    """A run as `export` wrote it; made by `read_exported`.

    Attributes
    ----------
    described : dict
        Its name, sites, catalogue, code, and what is known of it.
    arrays : dict of arrays
        The maps ``attention`` (row, layer, head, query, key), measures, rows and samples.
    """

    described: dict[str, Any]
    arrays: dict[str, np.ndarray]


def read_exported(source: Path) -> ExportedRun:
    """Read a file that `export` wrote.

    Raises
    ------
    UserError
        The file is not there, or is none that `export` wrote.
    """
    if not source.exists():
        raise UserError(f"{source} is not there")
    read = {
        ".parquet": _read_parquet,
        ".npz": _read_npz,
        ".nc": _read_xarray,
        ".zarr": _read_xarray,
    }
    if source.suffix not in read:
        raise UserError(f"{source}: a run is read from {', '.join(ENDINGS)}, not {source.suffix!r}")
    try:
        description, arrays = read[source.suffix](source)
        described = json.loads(description)
        if described["kind"] != _KIND:
            raise KeyError("kind")
    except (OSError, ValueError, KeyError, TypeError, zipfile.BadZipFile) as error:
        raise UserError(
            f"{source} is no run that `tssan-viz export` wrote, or is damaged: {error}"
        ) from error
    return ExportedRun(described, arrays)


def import_run(
    source: Path | ExportedRun,
    into: AttentionStore,
    *,
    run: str | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> str:
    """Make a run of a file that `export` wrote; rows that the run has already are left out.

    Parameters
    ----------
    source
        The file, or what `read_exported` made of it.
    into
        The store.
    run
        The run's name; by default the one it had.
    progress
        Called with the rows done and the rows there are.

    Returns
    -------
    str
        The run's name.

    Raises
    ------
    UserError
        The file is not there, or is none that `export` wrote.
    """
    exported = read_exported(source) if isinstance(source, Path) else source
    described, arrays = exported.described, exported.arrays
    sites = [Site(**site) for site in described["sites"]]
    catalogue = Catalogue.from_json(json.dumps(described["catalogue"]))
    name = run or described["run"]
    with into.writer(
        name, sites=sites, catalogue=catalogue, info=described["info"], code=described["code"]
    ) as writer:
        writer.add_samples(list(_samples_of(arrays)))
        rows = pd.DataFrame(
            {
                key.removeprefix("row_"): _column(arrays[key])
                for key in arrays
                if key.startswith("row_")
            }
        )
        maps = arrays["attention"]
        for start in range(0, len(rows), _ROWS_AT_A_TIME):
            part = slice(start, start + _ROWS_AT_A_TIME)
            writer.add(
                columns_of(rows.iloc[part]),
                {site.name: _as_coded(maps[part, i], writer.code) for i, site in enumerate(sites)},
                {
                    key.removeprefix("measure_"): {
                        site.name: arrays[key][part, i] for i, site in enumerate(sites)
                    }
                    for key in arrays
                    if key.startswith("measure_")
                },
            )
            if progress:
                progress(min(part.stop, len(rows)), len(rows))
    return name


def _as_coded(maps: np.ndarray, code: str) -> np.ndarray:
    return maps.astype(np.float16) if code == "float16" else maps.astype(np.float32)


def _column(values: np.ndarray) -> Any:
    """Undo `_plain`: empty words and NaN are missing, whole numbers are whole again."""
    if values.dtype.kind in "OU":
        return [None if value in ("", None) else str(value) for value in values.tolist()]
    if values.dtype.kind == "f":
        there = values[~np.isnan(values)]
        if len(there) < len(values) and (there == np.rint(there)).all():
            return pd.array([None if np.isnan(v) else int(v) for v in values], dtype="Int64")
    return values


def _samples_of(arrays: Mapping[str, np.ndarray]) -> Iterator[StoredSample]:
    if "sample_name" not in arrays:
        return
    fields = {
        name: list(_column(arrays[f"sample_{name}"]))
        for name in _SAMPLE_FIELDS
        if f"sample_{name}" in arrays
    }
    for i, sample in enumerate(arrays["sample_name"].tolist()):
        given: dict[str, Any] = dict.fromkeys(_SAMPLE_FIELDS)
        for name, values in fields.items():
            given[name] = None if pd.isna(values[i]) else values[i]
            if isinstance(given[name], np.generic):
                given[name] = given[name].item()
        for name in ("frames", "seconds", "poses", "present"):
            if f"sample_{name}" not in arrays:
                continue
            shape = arrays[f"sample_{name}_shape"][i]
            if shape.any():
                place: tuple[Any, ...] = (i, *(slice(n) for n in shape))
                stored = arrays[f"sample_{name}"][place]
                given[name] = stored > 0 if name == "present" else stored
        yield StoredSample(sample=str(sample), **given)


def _read_npz(source: Path) -> tuple[str, dict[str, np.ndarray]]:
    # allow_pickle stays off: the file may come from anybody.
    with np.load(source) as file:
        arrays = {name: file[name] for name in file.files}
    return str(arrays.pop("tssan_viz")), arrays


def _read_xarray(source: Path) -> tuple[str, dict[str, np.ndarray]]:
    import xarray

    opened = (
        xarray.open_zarr(source, chunks=None, consolidated=False)
        if source.suffix == ".zarr"
        else xarray.open_dataset(source)
    )
    with opened as data:
        arrays = {str(name): data[name].values for name in data.variables}
        return str(data.attrs["tssan_viz"]), arrays


def _read_parquet(source: Path) -> tuple[str, dict[str, np.ndarray]]:
    import pyarrow.parquet as pq

    table = pq.read_table(source)
    description = (table.schema.metadata or {})[b"tssan_viz"].decode()
    described = json.loads(description)
    sites = [Site(**site) for site in described["sites"]]
    shape = (-1, len(sites), sites[0].heads)
    values = table["attention"].combine_chunks()
    flat = values.flatten().to_numpy()
    arrays = {"attention": flat.reshape(*shape, sites[0].query, sites[0].key)}
    each = len(sites) * sites[0].heads
    names = table.column_names
    last_of_rows = names.index("layer")
    for name in names[:last_of_rows]:
        column = table[name].take(np.arange(0, table.num_rows, each)).to_pandas()
        plain = _plain(column)
        if plain is not None:
            arrays[f"row_{name}"] = plain
    for name in names[last_of_rows + 2 : -1]:
        arrays[f"measure_{name}"] = table[name].to_numpy().reshape(shape)
    return description, arrays

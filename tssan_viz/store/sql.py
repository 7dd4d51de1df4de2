"""Questions in SQL: DuckDB over what a store says of its maps, without the values.

DuckDB refuses a table with a float16 column, so it sees rows and measures, never the maps. A
question may come from a page or a script of somebody else: it reads these tables, no file and no
address, changes nothing, and cannot lift these limits.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pandas as pd
import pyarrow as pa

from tssan_viz.errors import UserError
from tssan_viz.store.schema import MEASURES, ROWS, SAMPLES, SITES, named

if TYPE_CHECKING:
    import duckdb
    import lance

    from tssan_viz.store.reader import AttentionStore

TABLES = ("maps", "rows", "samples", "sites", "runs")

# Lists of numbers stay out: they are for views.
_SAMPLE_COLUMNS = [field.name for field in SAMPLES if not pa.types.is_list(field.type)]
# Of the rows, what is of no use to a question.
_INWARD = ("checksum",)


@contextmanager
def confined() -> Iterator[duckdb.DuckDBPyConnection]:
    """Open a connection that reaches no file, no address and no variable of the caller's.

    Whoever registers tables at it calls ``SET lock_configuration = true`` before a question.
    """
    import duckdb

    with duckdb.connect(":memory:") as connection:
        connection.execute("SET enable_external_access = false")
        connection.execute("SET python_enable_replacements = false")
        yield connection


def query(store: AttentionStore, question: str) -> pa.Table:
    """Answer a question in SQL about a store.

    Parameters
    ----------
    store
        The store.
    question
        One SELECT over the tables

        ``maps``
            One line per row × layer × head: the row's columns, ``site`` (its name), ``stream``,
            ``layer``, ``head``, and the measures; not the values.
        ``rows``
            One line per row, with further metadata.
        ``samples``, ``sites``, ``runs``
            One line per video of a run, attention module's call, and run.

    Returns
    -------
    Table

    Raises
    ------
    UserError
        It is no SELECT, or names what is not there; the message names the tables.
    """
    import duckdb

    with confined() as connection:
        _register(connection, store)
        connection.execute("SET lock_configuration = true")
        try:
            statements = connection.extract_statements(question)
            kinds = {duckdb.StatementType.SELECT, duckdb.StatementType.EXPLAIN}
            if len(statements) != 1 or statements[0].type not in kinds:
                raise UserError(
                    "a question is one SELECT; a store is not changed through SQL. "
                    f"Its tables are {', '.join(TABLES)}"
                )
            return connection.sql(question).to_arrow_table()
        except (duckdb.Error, RuntimeError) as error:
            raise UserError(f"the question cannot be answered: {_in_words(error)}") from None


def _in_words(error: Exception) -> str:
    """Return what DuckDB says without the echo of the question; near names are kept."""
    lines = [line.strip() for line in str(error).splitlines()]
    told = [line for line in lines if line and not line.startswith(("LINE ", "^"))]
    return f"{' '.join(told)} (tables are {', '.join(TABLES)})"


def _register(connection: duckdb.DuckDBPyConnection, store: AttentionStore) -> None:
    runs = store.run_names()
    rows = pa.concat_tables(
        [ROWS.empty_table(), *(store.arrow_rows(run) for run in runs)], promote_options="default"
    )
    connection.register("rows", rows.drop_columns([n for n in _INWARD if n in rows.column_names]))
    connection.register("sites", _sites(store, runs))
    connection.register("runs", _runs(store))
    samples = store.dataset("samples")
    lines = None if samples is None else samples.to_table(columns=_SAMPLE_COLUMNS)
    connection.register("every_sample", SAMPLES.empty_table() if lines is None else lines)
    # Two ranks may have met the same video.
    connection.execute(
        f"CREATE VIEW samples AS SELECT DISTINCT ON (run, sample) {', '.join(_SAMPLE_COLUMNS)} "
        "FROM every_sample"
    )
    _register_maps(connection, store.dataset("measures"), rows.column_names)


def _register_maps(
    connection: duckdb.DuckDBPyConnection,
    measures: lance.LanceDataset | None,
    row_columns: list[str],
) -> None:
    source: Any = MEASURES.empty_table() if measures is None else measures
    connection.register("measures", source)
    names = source.schema.names
    recorded = [name for name in names if name not in MEASURES.names]
    shown = [n for n in row_columns if n not in (*_INWARD, *recorded)]
    columns = [
        *(f'r."{name}"' for name in shown),
        "s.name AS site",
        "m.stream",
        "m.layer",
        "m.head",
        *(f'm."{name}"' for name in recorded),
    ]
    # Of a row that two ranks recorded, the one that counts.
    same_rank = "AND m.rank = r.rank" if "rank" in names else ""
    connection.execute(
        f"CREATE VIEW maps AS SELECT {', '.join(columns)} FROM measures m "
        f"JOIN rows r ON m.row_id = r.row_id AND m.run = r.run {same_rank} "
        "JOIN sites s ON s.run = m.run AND s.site = m.site"
    )


def _sites(store: AttentionStore, runs: list[str]) -> pa.Table:
    parts = [store.sites(run).assign(run=run) for run in runs]
    if not parts:
        return SITES.empty_table()
    return pa.Table.from_pandas(pd.concat(parts)[SITES.names], schema=SITES, preserve_index=False)


def _runs(store: AttentionStore) -> pa.Table:
    frame = store.runs()
    frame["info"] = [json.dumps(info, ensure_ascii=False) for info in frame["info"]]
    frame["splits"] = [named(splits) for splits in frame["splits"]]
    return pa.Table.from_pandas(frame, preserve_index=False)

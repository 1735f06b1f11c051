"""Tables that do not fit into memory: Parquet files in, Parquet files out, some rows at a time.

Each file is a task, and within it a batch of rows is read, explained and written before the next
is read. Cost: that of the explainer; memory: one batch and its values for each worker.

Chapter: practice/scaling
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np

from shaplab._atomic import write_atomically
from shaplab._parallel import Crew
from shaplab._validation import check_callable, check_int, describe, fail, imported, shorten
from shaplab.explanation import Explanation

__all__ = ["explain_parquet"]


def explain_parquet(
    explain: Callable[[Any], Explanation],
    source: Any,
    target: Any,
    *,
    columns: Sequence[str] | None = None,
    keep: Sequence[str] = (),
    batch_rows: int = 65536,
    n_jobs: int | None = None,
    resume: bool = False,
    progress: bool = False,
) -> list[Path]:
    """Explain the rows of Parquet files and write their values as Parquet files of the same names.

    Parameters
    ----------
    explain : callable from a ``pyarrow.Table`` of rows to an :class:`Explanation`, such as
        ``lambda rows: tree_shap(model, rows)``; for what reads pandas
        ``lambda rows: permutation_shap(f, rows.to_pandas(), background)``.
    source : a Parquet file, a folder with them (and folders in it), or a list of files. What only
        the names of folders say (``day=2``) is no column.
    target : folder for the results, made if it is missing; files in folders below ``source`` go to
        folders below it.
    columns : the columns to explain, in this order; None: all but those of ``keep``.
    keep : columns that go to the results as they are, such as a customer's number.
    batch_rows : rows in memory at a time, of each worker.
    n_jobs : workers, one file each at a time, through joblib: under
        ``joblib.parallel_config("dask")`` those of a cluster, which must see the same disk.
    resume : whether files of results that are there already are kept, as after an interruption;
        otherwise they are an error.
    progress : show a bar that counts files.

    Returns
    -------
    Paths of the results, in the order of the sources; files without rows have none. Their columns:
    ``keep``, ``base value``, and the values by names of features, followed by ``[output]`` where
    there are several outputs; standard errors, if any, as ``std of <column>``. Rows are in the
    order of the source.

    Raises
    ------
    ValueError
        For sources and columns that are not there, results that are, and explanations of other
        than the rows of a table. What was written before stays, each file whole.

    Notes
    -----
    A sampling explainer should get its own ``rng`` in ``explain``: each batch is a call. A
    ``dask.dataframe`` goes through files, too: ``frame.to_parquet(folder)``.
    """
    check_callable(explain, "explain")
    check_int(batch_rows, "batch_rows")
    imported("pyarrow.parquet", "explain_parquet")
    files, root = _files_of(source)
    goal = Path(target)
    if goal.is_file() or goal.resolve() == root.resolve():
        fail("target", "a folder other than the source", str(target), "Name another one")
    pairs = [(file, goal / file.relative_to(root)) for file in files]
    present = [result for _, result in pairs if result.exists()]
    if present and not resume:
        fail(
            "target",
            "a folder without results of these files",
            f"{len(present)} of them, such as {present[0].name}",
            "Name another folder, or keep them and go on with resume=True",
        )
    tasks = [
        (file, result, columns, tuple(keep), batch_rows)
        for file, result in pairs
        if not result.exists()
    ]
    Crew(explain, n_jobs).run(_explain_file, tasks, progress, "files")
    return [result for _, result in pairs if result.exists()]


def _files_of(source: Any) -> tuple[list[Path], Path]:
    """The files to read, sorted, and the folder that their names are relative to."""
    rule = "a Parquet file, a folder with some, or a list of files"
    if isinstance(source, str | Path):
        path = Path(source)
        files = sorted(path.rglob("*.parquet")) if path.is_dir() else [path]
        root = path if path.is_dir() else path.parent
        if not files:
            fail("source", rule, f"{path} without a file *.parquet", "Name another folder")
    elif isinstance(source, Iterable):
        files = [Path(str(file)) for file in source]
        root = files[0].parent if files else Path()
        names = [file.name for file in files]
        if not files or len(set(names)) < len(names) or {file.parent for file in files} != {root}:
            fail("source", rule, "a list of none, or of several folders", "Name one folder's files")
    else:
        fail("source", rule, describe(source), "Pass a path", TypeError)
    for file in files:
        if not file.is_file():
            fail("source", rule, f"{file}, which is not there", "Check the name")
    return files, root


def _explain_file(
    explain: Callable[[Any], Explanation],
    source: Path,
    target: Path,
    columns: Sequence[str] | None,
    keep: tuple[str, ...],
    batch_rows: int,
) -> None:
    """One task: all rows of a file."""
    parquet = imported("pyarrow.parquet", "explain_parquet")
    # Without pre_buffer=False, pyarrow keeps every row group that it has read.
    with parquet.ParquetFile(source, pre_buffer=False) as file:
        names = file.schema_arrow.names
        chosen = [name for name in names if name not in keep] if columns is None else list(columns)
        for argument, wanted in (("columns", chosen), ("keep", keep)):
            unknown = [name for name in wanted if name not in names]
            if unknown:
                known = shorten(", ".join(names))
                fail(
                    argument,
                    f"columns of {source.name}: {known}",
                    shorten(", ".join(unknown)),
                    "Check the names",
                )
        if not file.metadata.num_rows:
            return
        target.parent.mkdir(parents=True, exist_ok=True)
        tables = _explained_batches(explain, file, chosen, keep, batch_rows)
        write_atomically(target, lambda draft: _write_tables(tables, draft))


def _explained_batches(
    explain: Callable[[Any], Explanation],
    file: Any,
    chosen: list[str],
    keep: tuple[str, ...],
    batch_rows: int,
) -> Iterator[Any]:
    """Tables of results, one for each batch of rows."""
    arrow = imported("pyarrow", "explain_parquet")
    wanted = [*chosen, *(name for name in keep if name not in chosen)]
    for batch in file.iter_batches(batch_size=batch_rows, columns=wanted):
        rows = arrow.Table.from_batches([batch])
        found = explain(rows.select(chosen))
        if not isinstance(found, Explanation) or found.values.ndim != 2 + found.has_outputs:
            fail(
                "explain",
                "a callable that returns the Explanation of a table's rows",
                describe(found),
                "Return what tree_shap(model, rows) returns",
                TypeError,
            )
        if len(found) != rows.num_rows:
            fail(
                "explain",
                f"one explanation for each of {rows.num_rows} rows",
                f"{len(found)}",
                "Explain all rows of the table that is passed",
            )
        parts = {name: rows[name] for name in keep}
        for name, numbers in _value_columns(found):
            if name in parts and name not in keep:
                fail("explain", "features of different names", repr(name), "Rename one of them")
            if name in parts:
                fail(
                    "keep",
                    "columns whose names no column of values has",
                    repr(name),
                    "Leave it out: results are in the order of the source's rows",
                )
            parts[name] = arrow.array(np.ascontiguousarray(numbers))
        yield arrow.table(parts)


def _value_columns(found: Explanation) -> Iterator[tuple[str, np.ndarray]]:
    """Names and numbers of the columns that hold an explanation of rows."""
    endings = [""]
    if found.has_outputs:
        names = found.output_names or range(found.values.shape[-1])
        endings = [f" [{name}]" for name in names]
    shape = (*found.values.shape[:2], len(endings))
    base = found.base_values.reshape(shape[0], -1)
    for number, ending in enumerate(endings):
        yield f"base value{ending}", base[:, number]
    for start, array in (("", found.values), ("std of ", found.std)):
        if array is not None:
            for feature, of_feature in zip(
                found.names, np.moveaxis(array.reshape(shape), 1, 0), strict=True
            ):
                for number, ending in enumerate(endings):
                    yield f"{start}{feature}{ending}", of_feature[:, number]


def _write_tables(tables: Iterator[Any], draft: IO[bytes]) -> None:
    """Write tables of one schema as row groups of one file."""
    parquet = imported("pyarrow.parquet", "explain_parquet")
    first = next(tables)
    with parquet.ParquetWriter(draft, first.schema) as writer:
        writer.write_table(first)
        for table in tables:
            if table.schema.names != first.schema.names:
                fail(
                    "explain",
                    "the same features and outputs for every batch",
                    shorten(", ".join(table.schema.names)),
                    "Return explanations of one model",
                )
            writer.write_table(table.cast(first.schema))

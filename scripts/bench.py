"""Measures the whole thing on the flights of 2013 and prints every figure beside its target or its baseline of the same
run. `--write` also records them in docs/benchmarks.md, with the machine."""

import argparse
import http.client
import json
import os
import platform
import re
import statistics
import subprocess
import sys
import time
from datetime import date

import duckdb
import flights
from kafka_broker import Broker
from running_server import ROOT, Server

QUERIES = {
    "group by carrier": "SELECT carrier, count(*), avg(dep_delay), sum(distance) FROM flights GROUP BY carrier",
    "filter two columns": "SELECT count(*), sum(air_time) FROM flights WHERE origin = 'JFK' AND dep_delay > 60",
    "join airlines": "SELECT a.name, count(*), avg(f.arr_delay) FROM flights f JOIN airlines a ON a.carrier = f.carrier GROUP BY a.name",
}
RUNS = 31
# name → (target, whether more is better); the targets are for a machine of two cores
TARGETS = {
    "import": (30_000, True),
    "first sync": (100_000, True),
    "crdt.joins_per_second": (3_000_000, True),
    "crdt.delta_with_uuid_id_bytes": (55, False),
    "crdt.document_heap_bytes": (1_500, False),
    "resident at rest": (150, False),
    "resident after import": (1_024, False),
    "ready after restart": (1, False),
    "feed_snapshot_read": (100_000, True),
    "feed_webhook_single": (3_000, True),
    "feed_kafka_backlog": (60_000, True),
    "feed_kafka_share_of_bare": (0.8, True),
    "feed_outage_over_arrivals": (10, True),
    "feed_kafka_latency_p99": (50, False),
}
FEEDS = ["cargo", "bench", "--quiet", "--locked", "-p", "bigpeer-kafka", "--bench", "feeds"]


class Report:
    def __init__(self):
        self.rows = []

    def add(self, name, value, unit, beside=""):
        target, more = TARGETS.get(name, (None, True))
        if target is not None:
            met = value >= target if more else value <= target
            beside = f"target {'≥' if more else '≤'} {target:,}: {'met' if met else 'MISSED'}{'; ' + beside if beside else ''}"
        shown = f"{value:,.0f}" if value >= 1000 else f"{value:,.3g}"
        self.rows.append((name, shown, unit, beside))
        print(f"{name:<44} {shown:>14} {unit:<14} {beside}", flush=True)


def measure_import(server, data, report):
    report.add("resident at rest", server.resident_mib(), "MiB")
    for table, key in (("airlines", "carrier"), ("flights", "id")):
        begun = time.monotonic()
        server.command("import", "--collection", table, "--id", key, "--null", "NA", str(data / f"{table}.csv"))
        seconds = time.monotonic() - begun
    report.add("import", 336_776 / seconds, "documents/s", "whole process, one connection, acknowledged")
    report.add("resident after import", server.resident_mib(), "MiB")


def medians_ms(*runs, times_each=RUNS):
    """The median time of each, taken in turns: what else the machine does meets all of them alike."""
    times = [[] for _ in runs]
    for _ in range(times_each):
        for run, taken in zip(runs, times):
            begun = time.perf_counter()
            run()
            taken.append((time.perf_counter() - begun) * 1000)
    return [statistics.median(taken) for taken in times]


def duck_over(server):
    """DuckDB over the Parquet files that the server's tables have now."""
    duck = duckdb.connect()
    duck.execute(f"SET threads = {os.cpu_count()}")
    tables = server.data_dir / "objects" / "apps" / server.credentials["app"] / "tables"
    for name in ("airlines", "flights"):
        files = [str(path) for path in current_segments(tables / name)]
        duck.execute(f"CREATE VIEW {name} AS SELECT * FROM read_parquet({files!r})")
    return duck


def measure_sql(server, report):
    for name in ("airlines", "flights"):
        server.configure(name, {"publication": {"mode": "compatible"}})
    server.compact()
    host = server.url.removeprefix("http://")
    connection = http.client.HTTPConnection(host)
    headers = {"Authorization": f"Bearer {server.credentials['api_key']}", "Content-Type": "application/json"}

    def ours(query):
        connection.request("POST", f"/{server.credentials['app']}/sql", json.dumps({"query": query}), headers)
        answer = connection.getresponse()
        body = answer.read()
        if answer.status != 200:
            sys.exit(f"{query}: {body.decode()}")
        return json.loads(body)

    duck = duck_over(server)
    for name, query in QUERIES.items():
        if len(ours(query)) != len(duck.execute(query).fetchall()):
            sys.exit(f"{name}: the answers differ")
        mine, theirs = medians_ms(lambda query=query: ours(query), lambda query=query: duck.execute(query).fetchall())
        ratio = mine / theirs
        report.add(f"SQL over DuckDB, {name}", ratio, "ratio", f"{mine:.1f} ms over HTTP, DuckDB {theirs:.1f} ms; target ≤ 1: {'met' if ratio <= 1 else 'MISSED'}")


def current_segments(table):
    """The files of the published table: what its log has added and not removed."""
    files = set()
    for commit in sorted((table / "_delta_log").glob("*.json")):
        for line in map(json.loads, commit.read_text().splitlines()):
            if "remove" in line:
                files.discard(line["remove"]["path"])
            if "add" in line:
                files.add(line["add"]["path"])
    if not files:
        sys.exit(f"{table.name} is not published")
    return [table / path for path in sorted(files)]


def measure_lines(report, command, folder=ROOT, environment=None):
    """Runs a benchmark that prints `name value unit` lines, or with tabs in between and a fourth field for what is beside."""
    done = subprocess.run(command, cwd=folder, text=True, stdout=subprocess.PIPE, env={**os.environ, **(environment or {})})
    if done.returncode != 0:
        sys.exit(f"{' '.join(command)} failed")
    for line in done.stdout.splitlines():
        parts = line.split("\t") if "\t" in line else line.split()
        if len(parts) >= 3 and re.fullmatch(r"[0-9.eE+-]+", parts[1]):
            report.add(parts[0], float(parts[1]), parts[2], parts[3] if len(parts) > 3 else "")


def measure_feeds(report, command=FEEDS):
    """The change feed: reading it, to webhooks, and to a broker of its own."""
    with Broker(ROOT / ".cache" / "bench-kafka") as broker:
        measure_lines(report, command, environment={"BIGPEER_BENCH_KAFKA": broker.address})


def machine():
    model = next((line.split(":")[1].strip() for line in open("/proc/cpuinfo") if line.startswith("model name")), "?")
    memory = next(int(line.split()[1]) // 1024 // 1024 for line in open("/proc/meminfo") if line.startswith("MemTotal"))
    return f"{os.cpu_count()} cores ({model}), {memory} GiB, {platform.system()} {platform.release().split('-')[0]}"


def write(report, section="figures"):
    path = ROOT / "docs" / "benchmarks.md"
    text = path.read_text()
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, text=True, capture_output=True).stdout.strip()
    table = [f"Measured {date.today()} at {commit} on {machine()}.", "", "| figure | value | unit | beside |", "| --- | ---: | --- | --- |"]
    table += [f"| {name} | {value} | {unit} | {beside} |" for name, value, unit, beside in report.rows]
    begin, end = f"<!-- {section} -->", f"<!-- end of {section} -->"
    head, tail = text.split(begin)[0], text.split(end)[1]
    path.write_text(f"{head}{begin}\n" + "\n".join(table) + f"\n{end}{tail}")


def main():
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--write", action="store_true", help="record the figures in docs/benchmarks.md")
    options.add_argument("--compare", action="store_true", help="also the log beside a raw file")
    options = options.parse_args()
    report = Report()
    print(machine())
    with Server(ROOT / ".cache" / "bench") as server:
        measure_import(server, flights.unpack(), report)
        server.kill()
        report.add("ready after restart", server.start(), "s")
        measure_lines(
            report,
            ["cargo", "bench", "--quiet", "--locked", "-p", "bigpeer-e2e", "--bench", "sync"],
            environment={"BIGPEER_CREDENTIALS": str(server.data_dir / "dev-credentials.json")},
        )
        measure_sql(server, report)
    measure_lines(report, ["cargo", "bench", "--quiet", "--locked", "-p", "bigpeer-crdt", "--bench", "joins"])
    measure_lines(report, ["cargo", "bench", "--quiet", "--locked", "-p", "bigpeer-gateway", "--bench", "sessions"])
    measure_lines(report, ["cargo", "bench", "--quiet", "--locked", "-p", "bigpeer-chassis", "--bench", "tokens"])
    measure_lines(report, ["cargo", "bench", "--quiet", "--locked", "-p", "bigpeer-auth", "--bench", "logins"])
    # The same work for automerge, loro and yrs: a workspace of its own, which the first run has to build.
    measure_lines(report, ["cargo", "run", "--quiet", "--release", "--locked"], ROOT / "tests" / "bench-crdt")
    measure_lines(report, ["cargo", "bench", "--quiet", "--locked", "-p", "bigpeer-compactor", "--bench", "levels"])
    measure_feeds(report)
    if options.compare:
        measure_lines(report, ["cargo", "bench", "--quiet", "--locked", "-p", "bigpeer-log"])
    if options.write:
        write(report)


if __name__ == "__main__":
    main()

"""What a bucket is asked for, and what that costs: bigpeer beside an S3 server (moto), by bigpeer's own counters. The flights of 2013
(336,776 documents) are written, merged, written again and synced; figures are per million documents, so they are about
three times what was counted. Requests do not depend on how fast moto is, except that what is written slower is flushed more
often. `--write` records them in docs/benchmarks.md."""

import argparse
import os
import random
import re
import shutil
import subprocess
import sys
import time
import urllib.request

import flights
from bench import ROOT, Report, machine, measure_lines, write
from running_server import Server

MILLIONS = 0.336776
# As Amazon lists them for S3 Standard in us-east-1, in dollars a request; deletions cost nothing.
WRITE_PRICE, READ_PRICE = 0.005 / 1000, 0.0004 / 1000
IDLE_SECONDS = 60
BENCH = ["cargo", "bench", "--quiet", "--locked", "-p", "bigpeer-e2e", "--bench", "sync"]


class Bucket:
    """An S3 server, for as long as the `with` lasts; in its environment credentials that it takes."""

    def __enter__(self):
        os.environ.update(AWS_ACCESS_KEY_ID="test", AWS_SECRET_ACCESS_KEY="test")
        command = [sys.executable, ROOT / "scripts" / "s3_server.py"]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        url = self.process.stdout.readline().strip()
        if not url:
            sys.exit("the S3 server did not start: is moto[server] installed?")
        self.flags = ["--objects", "s3://test/bench", "--s3-endpoint", url, "--s3-region", "us-east-1", "--s3-allow-http"]
        return self

    def __exit__(self, *_):
        self.process.stdin.close()
        self.process.wait()


def counters(server):
    """What the server has asked for since it started: requests and bytes by operation, and more."""
    text = urllib.request.urlopen(f"{server.url}/metrics").read().decode()
    totals = {}
    for name, labels, value in re.findall(r"^(bigpeer_\w+)(?:\{([^}]*)\})? ([0-9.e+-]+)$", text, re.MULTILINE):
        labels = dict(re.findall(r'(\w+)="([^"]*)"', labels))
        key = (name.removeprefix("bigpeer_"), labels.get("operation", ""))
        totals[key] = totals.get(key, 0) + float(value)
    return totals


def settled(server):
    """Counters when everything is flushed and nothing has been asked for in some seconds."""
    before, since = None, time.monotonic()
    while True:
        now = counters(server)
        asked = {key: value for key, value in now.items() if key[0].startswith("objects_")}
        if asked != before or now.get(("tables_overlay_bytes", ""), 0) > 0:
            before, since = asked, time.monotonic()
        if time.monotonic() - since > 5:
            return now
        time.sleep(0.5)


def bill(report, what, before, after, per=MILLIONS, unit="million"):
    """Rows for what was asked for between two readings."""

    def asked(name, *operations):
        keys = [(name, operation) for operation in operations]
        return sum(after.get(key, 0) - before.get(key, 0) for key in keys) / per

    writes = asked("objects_requests_total", "put", "create", "part", "multipart", "copy", "list")
    reads = asked("objects_requests_total", "get")
    dollars = writes * WRITE_PRICE + reads * READ_PRICE
    report.add(f"{what}: writes and lists", writes, f"requests/{unit}")
    report.add(f"{what}: reads", reads, f"requests/{unit}", f"together {dollars:.4f} dollars")
    report.add(f"{what}: deletions", asked("objects_requests_total", "delete"), f"requests/{unit}")
    sent = asked("objects_bytes_total", "put", "create", "part")
    report.add(f"{what}: bytes sent", sent / 1e6, f"MB/{unit}")
    report.add(f"{what}: bytes received", asked("objects_bytes_total", "get", "list") / 1e6, f"MB/{unit}")


def import_flights(server, csv):
    server.command("import", "--collection", "flights", "--id", "id", "--null", "NA", str(csv))


def shuffled(csv):
    """The same flights in another order, each with one more field: random updates of all documents."""
    out = csv.with_name("flights-again.csv")
    head, *lines = csv.read_text().splitlines()
    random.Random(1).shuffle(lines)
    out.write_text("\n".join([f"{head},again", *(f"{line},1" for line in lines)]) + "\n")
    return out


def sync_once(server, report):
    credentials = {"BIGPEER_CREDENTIALS": str(server.data_dir / "dev-credentials.json"), "BIGPEER_BENCH_FIRST_SYNC": "once"}
    measure_lines(report, BENCH, environment=credentials)


def measure(server, report):
    started = settled(server)
    bill(report, "a new app", {}, started, 1, "start")
    csv = flights.unpack() / "flights.csv"
    import_flights(server, csv)
    written = settled(server)
    bill(report, "first write", started, written)
    import_flights(server, shuffled(csv))
    again = settled(server)
    bill(report, "written again at random", written, again)
    server.compact()
    merged = settled(server)
    bill(report, "everything merged", again, merged)
    time.sleep(IDLE_SECONDS)
    bill(report, "nothing to do", merged, counters(server), IDLE_SECONDS / 3600, "hour")
    server.kill()
    shutil.rmtree(server.data_dir / "cache")
    server.start()
    restarted = settled(server)
    bill(report, "a restart, cold", {}, restarted, 1, "start")
    sync_once(server, report)
    synced = settled(server)
    bill(report, "first sync, cold cache", restarted, synced)
    sync_once(server, report)
    bill(report, "first sync, warm cache", synced, settled(server))
    repeated = sum(value for (name, _), value in synced.items() if name == "objects_s3_attempts_total")
    requests = sum(value for (name, _), value in synced.items() if name == "objects_requests_total")
    report.add("attempts for a request", repeated / max(requests, 1), "ratio", "above 1 are repetitions, and what is not counted above")


def main():
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--write", action="store_true", help="record the figures in docs/benchmarks.md")
    options = options.parse_args()
    report = Report()
    print(machine())
    with Bucket() as bucket, Server(ROOT / ".cache" / "bench-s3", *bucket.flags) as server:
        measure(server, report)
    if options.write:
        write(report, "s3 bill")


if __name__ == "__main__":
    main()

"""Measures the change feed alone, of what `make bench` measures: events read, snapshots, webhooks beside bare posts, Kafka beside
a bare producer of the same payload, making up for an outage, and latency. `--write` records it in docs/benchmarks.md;
`--debug` runs the test build on few documents, to see that it works."""

import argparse
import os

from bench import Report, machine, measure_feeds, write


def main():
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--write", action="store_true", help="record the figures in docs/benchmarks.md")
    options.add_argument("--debug", action="store_true", help="the test build, few documents; its figures mean nothing")
    options = options.parse_args()
    report = Report()
    print(machine())
    if options.debug:
        os.environ.setdefault("BIGPEER_BENCH_DOCUMENTS", "4000")
        cargo = os.environ.get("CARGO", "cargo").split()
        measure_feeds(report, [*cargo, "test", "--locked", "-p", "bigpeer-kafka", "--bench", "feeds"])
    else:
        measure_feeds(report)
    if options.write and not options.debug:
        write(report, "feed figures")


if __name__ == "__main__":
    main()

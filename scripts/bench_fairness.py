"""Two apps on one server: how long statements of the one take alone, and while the other floods the server. Prints the ratio of
the 99th percentiles; the target is at most 2. The flood comes from processes of its own, so that this one measures only itself."""

import argparse
import http.client
import json
import multiprocessing
import statistics
import sys
import time
import urllib.parse

from running_server import ROOT, Server

TARGET = 2.0
DOCUMENTS = 2_000


def statement(connection, app, key, text, **args):
    """One statement; its status and seconds."""
    begun = time.perf_counter()
    headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
    connection.request("POST", f"/{app}/api/v5/store/execute", json.dumps({"statement": text, "args": args}), headers)
    response = connection.getresponse()
    response.read()
    return response.status, time.perf_counter() - begun


def connect(url):
    where = urllib.parse.urlsplit(url)
    return http.client.HTTPConnection(where.hostname, where.port, timeout=60)


def flood(url, app, key, threads, polite, stop, counts):
    """Statements without a pause from `threads` connections, until told to stop; a polite client waits as it is told to."""
    import os
    import threading

    # Clients have machines of their own: what these compute is not to be missing where the server runs.
    os.nice(19)

    def one(number):
        connection, asked, refused = connect(url), 0, 0
        while not stop.is_set():
            text = "SELECT COUNT(*) AS n FROM things WHERE n >= :n" if number % 2 else "UPDATE things SET n = :n WHERE _id = :n"
            try:
                status, _ = statement(connection, app, key, text, n=asked % DOCUMENTS)
            except (OSError, http.client.HTTPException):
                connection = connect(url)
                continue
            asked += 1
            if status == 429:
                refused += 1
                if polite:
                    stop.wait(1)
        with counts.get_lock():
            counts[0] += asked
            counts[1] += refused

    running = [threading.Thread(target=one, args=(number,)) for number in range(threads)]
    for thread in running:
        thread.start()
    for thread in running:
        thread.join()


def measure(url, app, key, seconds, rate):
    """Seconds of each statement of a client that asks `rate` times a second: reads and writes of single documents."""
    connection, times = connect(url), []
    begun, number = time.perf_counter(), 0
    while (due := begun + number / rate) < begun + seconds:
        time.sleep(max(0.0, due - time.perf_counter()))
        text = "SELECT * FROM things WHERE _id = :n" if number % 2 else "UPDATE things SET n = :n WHERE _id = :n"
        status, taken = statement(connection, app, key, text, n=number % DOCUMENTS)
        if status != 200:
            sys.exit(f"a statement of the calm app was answered {status}")
        # What is late because the one before took long counts as late.
        times.append(max(taken, time.perf_counter() - due))
        number += 1
    return times


def percentiles(times):
    cut = statistics.quantiles(times, n=100)
    return cut[49] * 1000, cut[98] * 1000


def with_flood(server, noisy, args, polite, work):
    stop, counts = multiprocessing.Event(), multiprocessing.Array("q", 2)
    app, key = noisy
    each = [args.connections // args.processes] * args.processes
    others = [multiprocessing.Process(target=flood, args=(server.url, app, key, count, polite, stop, counts)) for count in each]
    for process in others:
        process.start()
    time.sleep(1)
    begun = time.monotonic()
    result = work()
    seconds = time.monotonic() - begun
    stop.set()
    for process in others:
        process.join()
    return result, counts[0] / (seconds + 1), counts[1] / (seconds + 1)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=int, default=15, help="of each measurement")
    parser.add_argument("--rate", type=int, default=100, help="statements a second of the calm app")
    parser.add_argument("--connections", type=int, default=64, help="of the noisy app")
    parser.add_argument("--processes", type=int, default=2, help="that flood")
    parser.add_argument("--requests-per-second", type=int, default=200, help="quota of the noisy app in the last measurement")
    parser.add_argument("--rounds", type=int, default=3, help="the median of so many is shown")
    args = parser.parse_args()
    with Server(ROOT / "target/bench-fairness") as server:
        admin = server.credentials["admin_token"]

        def app(name):
            made = server.post(f"/admin/v1/tenants/dev/apps/{name}", {}, admin, "PUT")["id"]
            everything = {"qlVersion": 1, "read": {"everything": True}, "write": {"everything": True}}
            key = server.post(f"/admin/v1/apps/{made}/api-keys/bench", {"permissions": everything}, admin, "PUT")["key"]
            connection = connect(server.url)
            for first in range(0, DOCUMENTS, 500):
                documents = [{"_id": n, "n": n, "text": "x" * 100} for n in range(first, first + 500)]
                status, _ = statement(connection, made, key, "INSERT INTO things DOCUMENTS (:documents)", documents=documents)
                if status != 200:
                    sys.exit(f"the documents were answered {status}")
            return made, key

        calm, noisy = app("calm"), app("noisy")
        calm_alone = lambda: measure(server.url, *calm, args.seconds, args.rate)
        measure(server.url, *calm, 3, args.rate)
        ratios = {"flooded": [], "flooded, with a quota": []}
        for number in range(args.rounds):
            alone50, alone99 = percentiles(calm_alone())
            print(f"round {number + 1}: alone                    p50 {alone50:7.2f} ms  p99 {alone99:7.2f} ms", flush=True)
            for name in ratios:
                quota = {"requests_per_second": args.requests_per_second} if "quota" in name else {}
                server.post(f"/admin/v1/apps/{noisy[0]}/quota", quota, admin, "PUT")
                times, asked, refused = with_flood(server, noisy, args, polite=bool(quota), work=calm_alone)
                p50, p99 = percentiles(times)
                ratios[name].append(p99 / alone99)
                print(
                    f"         {name:<24} p50 {p50:7.2f} ms  p99 {p99:7.2f} ms  ratio {p99 / alone99:5.2f}"
                    f"   (the flood: {asked:,.0f}/s, of which {refused:,.0f}/s refused)",
                    flush=True,
                )
        for name, found in ratios.items():
            ratio = statistics.median(found)
            print(f"p99 {name} / alone: {ratio:.2f}   target ≤ {TARGET}: {'met' if ratio <= TARGET else 'MISSED'}")


if __name__ == "__main__":
    main()

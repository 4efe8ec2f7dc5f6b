"""The change feed to Kafka, through the real binary, a real broker, and the clients that people have.

- kills: `kill -9` of the server 20 times under load; every event is there once, in its document's order.
- outage: the broker is away for a while; the lag is seen, memory is bounded, nothing is lost or repeated.
- secured: TLS with a certificate of our own, and each way of showing a password; none of it is shown again.
- flights: a snapshot of the flights, then live changes, consumed by aiokafka; `--rows` for fewer than all of them."""

import argparse
import asyncio
import itertools
import json
import random
import sys
import time

import aiokafka
from confluent_kafka import Consumer, KafkaError, TopicPartition

import flights
from kafka_broker import Broker
from kafka_gate import Gate
from running_server import ROOT, Server

KILLS = 20
NOTES = 12
PARTITIONS = 3
# Written while the broker is away.
OUTAGE_MIB = 60


def check(what, holds):
    if not holds:
        sys.exit(f"{what}: no")


def say(text):
    print(f"feed_kafka: {text}", flush=True)


def make_feed(server, broker, name, **extra):
    create = {"partitions": PARTITIONS, "retentionMs": 3_600_000}
    sink = {"type": "kafka", "brokers": broker.address, "topic": name, "create": create}
    server.admin("PUT", f"feeds/{name}", {"owner": "dev", "sink": sink} | extra)


def wait(server, name, what, holds, seconds=120):
    """Waits until the feed is as wanted; how it is then."""
    deadline = time.monotonic() + seconds
    while True:
        feed = server.admin("GET", f"feeds/{name}")
        if holds(feed):
            return feed
        check(f"after {seconds} s {what} ({feed})", time.monotonic() < deadline)
        time.sleep(0.05)


def caught_up(server, name, seconds=120):
    return wait(server, name, "the feed has caught up", lambda feed: feed["lag"]["transactions"] == 0, seconds)


def consume(broker, topic):
    """Everything that a consumer of committed messages finds in the topic now, by partition."""
    consumer = Consumer({
        "bootstrap.servers": broker.address, "group.id": "test", "isolation.level": "read_committed",
        "enable.partition.eof": True, "log_level": 0,
    })
    consumer.assign([TopicPartition(topic, partition, 0) for partition in range(PARTITIONS)])
    found, ended = {partition: [] for partition in range(PARTITIONS)}, set()
    while len(ended) < PARTITIONS:
        message = consumer.poll(30)
        check("the broker answers", message is not None)
        if message.error():
            if message.error().code() == KafkaError._PARTITION_EOF:
                ended.add(message.partition())
        else:
            found[message.partition()].append(json.loads(message.value()))
    consumer.close()
    return found


def replay(found):
    """The documents that the events lead to; each event must be there once, and follow the one before it."""
    ids = [event["id"] for events in found.values() for event in events]
    check(f"each of {len(ids)} events is there once", len(ids) == len(set(ids)))
    documents = {}
    for event in itertools.chain.from_iterable(found.values()):
        change, key = event["change"], json.dumps(event["documentId"])
        old = change["value"] if change["method"] == "remove" else change["oldValue"]
        check(f"{event['id']} follows what was before", old == documents.get(key))
        if change["method"] == "remove":
            del documents[key]
        else:
            documents[key] = change["newValue"]
    return documents


def write(server, chance, count):
    for _ in range(count):
        note = {"_id": chance.randrange(NOTES), "n": chance.randrange(1_000_000)}
        if chance.randrange(8) == 0:
            server.dql("DELETE FROM notes WHERE _id = :id", id=note["_id"])
        else:
            server.dql("INSERT INTO notes DOCUMENTS (:note) ON ID CONFLICT DO UPDATE", note=note)


def write_much(server, rounds):
    """Changes 100 documents again and again, a MiB at a time; as events, with before and after, that is twice as much."""
    for number in range(rounds):
        text = chr(ord("a") + number % 26) * 10_000
        many = [{"_id": note, "n": number, "text": text} for note in range(100)]
        server.dql("INSERT INTO notes DOCUMENTS (:many) ON ID CONFLICT DO UPDATE", many=many)


def compare(server, broker, topic):
    found = consume(broker, topic)
    wanted = {json.dumps(item["_id"]): item for item in server.dql("SELECT * FROM notes")["items"]}
    check(f"the events of {topic} lead to the documents that are there", replay(found) == wanted)
    return sum(map(len, found.values()))


def kills(folder, broker):
    chance = random.Random(8)
    with Server(folder / "kills") as server:
        make_feed(server, broker, "kills", sources=[{"collection": "notes"}])
        for _ in range(KILLS):
            write(server, chance, chance.randrange(20, 60))
            time.sleep(chance.random() * 0.3)
            server.kill()
            server.start()
        caught_up(server, "kills")
        say(f"{KILLS} kills: {compare(server, broker, 'kills')} events, each once")


def outage(folder, broker):
    with Server(folder / "outage") as server:
        make_feed(server, broker, "outage", sources=[{"collection": "notes"}])
        write_much(server, OUTAGE_MIB)
        caught_up(server, "outage")
        for _ in range(2):
            broker.stop()
            before = server.resident_mib()
            write_much(server, OUTAGE_MIB)
            feed = wait(server, "outage", "the lag is seen", lambda feed: feed["lag"]["transactions"] >= OUTAGE_MIB)
            grown = server.resident_mib() - before
            check(f"what waits is not in memory ({grown:.0f} MiB for {2 * OUTAGE_MIB})", grown < OUTAGE_MIB)
            broker.start()
            begun = time.monotonic()
            caught_up(server, "outage")
            say(f"broker back: {feed['lag']} made up for in {time.monotonic() - begun:.1f} s, {grown:.0f} MiB more memory")
        say(f"outages: {compare(server, broker, 'outage')} events, each once")


def secured(folder, broker):
    chance = random.Random(10)
    with Server(folder / "secured") as server, Gate(broker.port, "feeds", "open sesame") as gate:
        def sink(topic, mechanism, password):
            sasl = {"mechanism": mechanism, "username": "feeds", "password": password}
            address = f"127.0.0.1:{gate.port}"
            create = {"partitions": PARTITIONS}
            tls = gate.tls()
            return {"type": "kafka", "brokers": address, "topic": topic, "create": create, "tls": tls, "sasl": sasl}

        for mechanism in ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"):
            name = f"secured-{mechanism.lower()}"
            spec = {"owner": "dev", "cursor": "0.0", "sources": [{"collection": "notes"}]}
            made = server.admin("PUT", f"feeds/{name}", spec | {"sink": sink(name, mechanism, "open sesame")})
            write(server, chance, 20)
            caught_up(server, name)
            compare(server, broker, name)
            check("no secret is shown", "open sesame" not in json.dumps(made) and "PRIVATE" not in json.dumps(made))
        wrong = sink("wrong", "SCRAM-SHA-256", "open barley")
        server.admin("PUT", "feeds/wrong", {"owner": "dev", "sink": wrong})
        told = lambda feed: "authentication failed" in str((feed["process"] or {}).get("lastError")).lower()
        wait(server, "wrong", "it is told that the password is wrong", told)
        text = server.log.read_text()
        check("no secret is logged", "open sesame" not in text and "open barley" not in text and "PRIVATE" not in text)
        check("each mechanism was used", gate.mechanisms == {"PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"})
        say("secured: TLS, a certificate, PLAIN and SCRAM")


async def follow(broker, topic, counts, until):
    """Counts events by what they are, until there are enough of each."""
    consumer = aiokafka.AIOKafkaConsumer(
        topic, bootstrap_servers=broker.address, isolation_level="read_committed", auto_offset_reset="earliest"
    )
    await consumer.start()
    try:
        async with asyncio.timeout(900):
            while any(counts[kind] < count for kind, count in until.items()):
                for messages in (await consumer.getmany(timeout_ms=500)).values():
                    for message in messages:
                        event = json.loads(message.value)
                        kind = "snapshot" if event.get("snapshot") else event["type"]
                        counts[kind] += 1
                        if kind != "snapshotBegin" and kind != "snapshotEnd":
                            counts["seen"].add((event["id"], json.dumps(event["documentId"])))
    finally:
        await consumer.stop()


def fly(folder, broker, rows):
    data = flights.unpack() / "flights.csv"
    if rows:
        part = folder / "flights.csv"
        with open(data) as source:
            part.write_text("".join(itertools.islice(source, rows + 1)))
        data = part
    with Server(folder / "flights") as server:
        server.command("import", "--collection", "flights", "--id", "id", "--null", "NA", str(data))
        total, deadline = rows or 336_776, time.monotonic() + 60
        # What was acknowledged is in the log; a read may come before it is applied.
        while server.dql("SELECT COUNT(*) AS n FROM flights")["items"][0]["n"] != total:
            check("all flights are there", time.monotonic() < deadline)
        make_feed(server, broker, "flights", snapshot=True, sources=[{"collection": "flights"}])
        counts = {kind: 0 for kind in ("snapshot", "snapshotBegin", "snapshotEnd", "documentChanged")} | {"seen": set()}
        begun = time.monotonic()
        # Else the broker would make the topic for the consumer, with one partition.
        wait(server, "flights", "the snapshot has begun", lambda feed: feed["delivered"] > 0)
        asyncio.run(follow(broker, "flights", counts, {"snapshot": total, "snapshotEnd": PARTITIONS}))
        took = time.monotonic() - begun
        check("each flight is in the snapshot once", counts["snapshot"] == total == len(counts["seen"]))
        say(f"flights: a snapshot of {total} consumed by aiokafka in {took:.1f} s, {total / took:.0f} documents/s")
        for gate in range(20):
            server.dql("UPDATE flights SET gate = :gate WHERE _id = :id", gate=f"B{gate}", id=gate + 1)
        counts = dict.fromkeys(counts, 0) | {"seen": set()}
        asyncio.run(follow(broker, "flights", counts, {"documentChanged": 20}))
        check("live changes follow, each once", counts["documentChanged"] == 20)
        check("nothing is told twice", len(counts["seen"]) == total + 20)
        say("flights: 20 live changes followed")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("parts", nargs="*", default=["kills", "outage", "secured", "flights"], help="by default all")
    parser.add_argument("--rows", type=int, help="the first so many flights")
    options = parser.parse_args()
    folder = ROOT / ".cache" / "feed-kafka"
    with Broker(folder / "broker") as broker:
        for part in options.parts:
            if part == "flights":
                fly(folder, broker, options.rows)
            else:
                {"kills": kills, "outage": outage, "secured": secured}[part](folder, broker)


if __name__ == "__main__":
    main()

"""Runs the tests of `bigpeer-kafka` that need a broker: a plain one, and one behind a gate that asks who comes."""

import json
import os
import subprocess

from kafka_broker import Broker
from kafka_gate import Gate
from running_server import ROOT
from suite_build import tests_of

CRATE = "services/kafka"


def main():
    binary = tests_of(CRATE)
    with Broker(ROOT / ".cache" / "test-kafka") as broker, Gate(broker.port, "feeds", "open sesame") as gate:
        told = {"brokers": f"127.0.0.1:{gate.port}", "username": gate.user, "password": gate.password, "tls": gate.tls()}
        environment = os.environ | {"BIGPEER_TEST_KAFKA": broker.address, "BIGPEER_TEST_KAFKA_GATE": json.dumps(told)}
        subprocess.run([binary, "--ignored"], cwd=ROOT / CRATE, env=environment, check=True)


if __name__ == "__main__":
    main()

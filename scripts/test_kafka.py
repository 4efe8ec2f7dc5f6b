"""Runs the tests of `bigpeer-kafka` that need a broker. The suite's own build is taken, so that nothing is compiled twice."""

import json
import os
import subprocess
import sys

from kafka_broker import Broker
from running_server import ROOT

BUILD = ["test", "--locked", "--workspace", "--no-run", "--message-format", "json"]


def suite():
    cargo = os.environ.get("CARGO", "cargo")
    out = subprocess.run([cargo, *BUILD], cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True).stdout
    for line in out.splitlines():
        message = json.loads(line) if line.startswith("{") else {}
        target = message.get("target", {})
        if target.get("name") == "it" and "services/kafka" in target.get("src_path", "") and message.get("executable"):
            return message["executable"]
    sys.exit("the tests of bigpeer-kafka were not built")


def main():
    binary = suite()
    with Broker(ROOT / ".cache" / "test-kafka") as broker:
        environment = os.environ | {"BIGPEER_TEST_KAFKA": broker.address}
        subprocess.run([binary, "--ignored"], cwd=ROOT / "services/kafka", env=environment, check=True)


if __name__ == "__main__":
    main()

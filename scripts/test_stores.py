"""Runs the tables' suite on every kind of object storage: on a local disk, and on an S3 server (moto, started by the tests);
and lets readers that others wrote read published tables. The suite's own build is taken, so that nothing is compiled twice; `cargo test` runs it in memory."""

import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BUILD = ["test", "--locked", "--workspace", "--no-run", "--message-format", "json"]
# Tests of failures bring a store of their own.
OWN_STORES = ["--skip", "chaos", "--skip", "faults", "--skip", "outside_readers"]


def suite():
    cargo = os.environ.get("CARGO", "cargo")
    out = subprocess.run([cargo, *BUILD], cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True).stdout
    for line in out.splitlines():
        message = json.loads(line) if line.startswith("{") else {}
        target = message.get("target", {})
        if target.get("name") == "it" and "storage/tables" in target.get("src_path", "") and message.get("executable"):
            return message["executable"]
    sys.exit("the tables' tests were not built")


def main():
    binary = suite()
    for where, arguments in [
        ("disk", OWN_STORES),
        ("s3", ["--include-ignored", *OWN_STORES]),
        ("disk", ["--ignored", "outside_readers"]),
    ]:
        print(f"tables on {where}: {' '.join(arguments)}", flush=True)
        environment = os.environ | {
            "BIGPEER_TEST_OBJECTS": where,
            "BIGPEER_TEST_PYTHON": sys.executable,
            # moto asks for credentials and takes any.
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
        }
        subprocess.run([binary, *arguments], cwd=ROOT / "storage/tables", env=environment, check=True)


if __name__ == "__main__":
    main()

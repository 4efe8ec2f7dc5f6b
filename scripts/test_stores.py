"""Runs the tables' suite on every kind of object storage: on a local disk, and on an S3 server (moto, started by the tests);
and lets readers that others wrote read published tables. `cargo test` runs it in memory."""

import os
import subprocess
import sys

from running_server import ROOT
from suite_build import tests_of

CRATE = "storage/tables"
# Tests of failures bring a store of their own.
OWN_STORES = ["--skip", "chaos", "--skip", "faults", "--skip", "outside_readers"]


def main():
    binary = tests_of(CRATE)
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
        subprocess.run([binary, *arguments], cwd=ROOT / CRATE, env=environment, check=True)


if __name__ == "__main__":
    main()

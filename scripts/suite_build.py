"""The suite's own build of a crate's tests, for those that need more than `cargo test` brings. Nothing is compiled twice."""

import json
import os
import subprocess
import sys

from running_server import ROOT

BUILD = ["test", "--locked", "--workspace", "--no-run", "--message-format", "json"]


def tests_of(crate):
    """The tests in `tests/it` of the crate in this folder."""
    cargo = os.environ.get("CARGO", "cargo")
    out = subprocess.run([cargo, *BUILD], cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True).stdout
    for line in out.splitlines():
        message = json.loads(line) if line.startswith("{") else {}
        target = message.get("target", {})
        if target.get("name") == "it" and crate in target.get("src_path", "") and message.get("executable"):
            return message["executable"]
    sys.exit(f"the tests of {crate} were not built")

"""Does a running server keep what its OpenAPI description promises? Schemathesis asks each route with thousands of requests
that the description allows, and with some that it does not.

Over the release binary: scripts/contract.py. Over any other server: scripts/contract.py --url http://HOST/APP --key KEY
"""

import argparse
import json
import subprocess
import sys
import urllib.request
from pathlib import Path

from running_server import ROOT, Server

# All that can be judged from outside. Left out: that whatever the description allows is accepted, because a text is not
# yet a statement of DQL.
CHECKS = [
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
    "negative_data_rejection",
    "unsupported_method",
    "ignored_auth",
]

# What makes random requests meet something: without, nearly every statement would be nonsense.
SEED = [
    "INSERT INTO people DOCUMENTS ({'_id': 1, 'name': 'Ada'}), ({'_id': 'b', 'n': 5}) ON ID CONFLICT DO NOTHING",
    "UPDATE people APPLY visits INCREMENT BY 1 WHERE _id = 1",
]


def seed(url, key):
    for statement in SEED:
        request = urllib.request.Request(
            f"{url}/api/v5/store/execute",
            json.dumps({"statement": statement}).encode(),
            {"Authorization": f"Bearer {key}", "Content-Type": "application/json"},
        )
        urllib.request.urlopen(request).read()


def check(url, key, examples):
    seed(url, key)
    schemathesis = Path(sys.executable).parent / "schemathesis"
    command = [
        str(schemathesis), "run", f"{url}/api/v4/swagger.json", "--url", url,
        "--header", f"Authorization: Bearer {key}",
        "--checks", ",".join(CHECKS), "--max-examples", str(examples), "--phases", "examples,coverage,fuzzing",
        # A stream does not end; its refusals are tested in its crate.
        "--exclude-path", "/changes",
        "--seed", "7", "--generation-database", "none", "--suppress-health-check", "all", "--request-timeout", "60",
    ]
    # It keeps what it found in the folder where it runs.
    folder = ROOT / ".cache" / "contract-report"
    folder.mkdir(parents=True, exist_ok=True)
    return subprocess.run(command, cwd=folder).returncode


def main():
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--url", help="of a running server's app; without, the release binary is started")
    options.add_argument("--key", help="an API key of the app")
    options.add_argument("--examples", type=int, default=100, help="how many requests of each kind")
    given = options.parse_args()
    if given.url:
        if not given.key:
            options.error("--url needs --key")
        sys.exit(check(given.url.rstrip("/"), given.key, given.examples))
    with Server(ROOT / ".cache" / "contract") as server:
        app, key = server.credentials["app"], server.credentials["api_key"]
        sys.exit(check(f"{server.url}/{app}", key, given.examples))


if __name__ == "__main__":
    main()

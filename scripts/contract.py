"""Does a running server keep what its OpenAPI descriptions promise? Schemathesis asks each route with thousands of requests
that the description allows, and with some that it does not: of the data API of an app, and of the admin API.

Over the release binary: scripts/contract.py. Over any other server: scripts/contract.py --url http://HOST/APP --key KEY, and
--admin http://HOST --key TOKEN with an operator's token for the admin API, which leaves tenants, apps and keys behind.
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
    # A stream does not end; its refusals are tested in its crate.
    return run(f"{url}/api/v4/swagger.json", url, key, examples, ["--exclude-path", "/changes"])


# What the admin API is asked about, besides what the description makes up.
ADMIN_SEED = [
    ("tenants/a", {}),
    ("tenants/a/apps/a", {"deletion_protection": False}),
    ("tenants/b", {}),
]
# Admin routes that say less in their descriptions than they check (what a feed's receiver needs, what a provider of some type
# has, conditions in DQL): that what a description forbids is refused is asked of the others only.
LOOSE = "/(feeds|providers|revocations|collections|backups|clones)"


def check_admin(url, token, examples):
    """As the operator who has `token`: the last of those cannot be deleted, and so goes on to be good."""
    for path, body in ADMIN_SEED:
        request = urllib.request.Request(
            f"{url}/admin/v1/{path}",
            json.dumps(body).encode(),
            {"Authorization": f"Bearer {token}", "Content-Type": "application/json"},
            method="PUT",
        )
        urllib.request.urlopen(request).read()
    described = f"{url}/admin/v1/openapi.json"
    strict = run(described, url, token, examples, ["--exclude-path-regex", LOOSE])
    checks = [check for check in CHECKS if check != "negative_data_rejection"]
    loose = run(described, url, token, examples, ["--include-path-regex", LOOSE], checks)
    return strict or loose


def run(description, url, key, examples, paths, checks=CHECKS):
    schemathesis = Path(sys.executable).parent / "schemathesis"
    command = [
        str(schemathesis), "run", description, "--url", url,
        "--header", f"Authorization: Bearer {key}",
        "--checks", ",".join(checks), "--max-examples", str(examples), "--phases", "examples,coverage,fuzzing", *paths,
        "--seed", "7", "--generation-database", "none", "--suppress-health-check", "all", "--request-timeout", "60",
    ]
    # It keeps what it found in the folder where it runs.
    folder = ROOT / ".cache" / "contract-report"
    folder.mkdir(parents=True, exist_ok=True)
    return subprocess.run(command, cwd=folder).returncode


def main():
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--url", help="of a running server's app; without, the release binary is started")
    options.add_argument("--admin", help="of a running server: its admin API is asked")
    options.add_argument("--key", help="an API key of the app, or with --admin an operator's token")
    options.add_argument("--examples", type=int, default=100, help="how many requests of each kind")
    given = options.parse_args()
    if given.admin:
        if not given.key:
            options.error("--admin needs --key")
        sys.exit(check_admin(given.admin.rstrip("/"), given.key, given.examples))
    if given.url:
        if not given.key:
            options.error("--url needs --key")
        sys.exit(check(given.url.rstrip("/"), given.key, given.examples))
    with Server(ROOT / ".cache" / "contract") as server:
        app, key = server.credentials["app"], server.credentials["api_key"]
        data = check(f"{server.url}/{app}", key, given.examples)
        admin = check_admin(server.url, server.credentials["admin_token"], given.examples)
        sys.exit(data or admin)


if __name__ == "__main__":
    main()

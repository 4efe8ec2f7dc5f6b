"""Holds the rules of the house that the compiler cannot: who may depend on whom, one version of the columnar crates,
files of a size that a person can hold in the head, and nothing of any one machine in the tree. Prints what broke and why."""

import json
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

# Crates that do no I/O may not reach, even indirectly, what does.
PURE = {"bigpeer-types", "bigpeer-crdt", "bigpeer-dql", "bigpeer-protocol"}
IO_CRATES = {"tokio", "axum", "object_store", "reqwest", "rusqlite", "datafusion"}
# Services meet through the log, the tables and the catalogue; only the binary composes them.
SERVICES = {"bigpeer-auth", "bigpeer-control", "bigpeer-gateway", "bigpeer-api", "bigpeer-compactor", "bigpeer-changefeed", "bigpeer-sql"}
COMPOSER = {"bigpeer", "bigpeer-e2e"}
# Doors: each may import the one service that it is a door of, and no other.
DOORS = {"bigpeer-flight": "bigpeer-sql", "bigpeer-pgwire": "bigpeer-sql", "bigpeer-kafka": "bigpeer-changefeed"}
# What the Terraform provider builds with: nothing columnar may come with it.
LIGHT = {"bigpeer-auth", "bigpeer-chassis", "bigpeer-control", "bigpeer-feed-spec"}
ONE_VERSION = [
    "arrow", "arrow-flight", "parquet", "object_store", "datafusion", "prost", "tonic", "tokio", "rustls", "axum",
    "tokio-tungstenite",
]
MAX_LINES = 800


def metadata():
    out = subprocess.run(
        ["cargo", "metadata", "--format-version", "1", "--locked"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return json.loads(out.stdout)


def reachable(name, edges):
    seen, todo = set(), [name]
    while todo:
        for dep in edges.get(todo.pop(), ()):
            if dep not in seen:
                seen.add(dep)
                todo.append(dep)
    return seen


def dependency_problems(meta):
    names = {package["id"]: package["name"] for package in meta["packages"]}
    edges = {}
    for node in meta["resolve"]["nodes"]:
        normal = {
            names[dep["pkg"]] for dep in node["deps"] if any(kind["kind"] is None for kind in dep["dep_kinds"])
        }
        edges.setdefault(names[node["id"]], set()).update(normal)
    members = {names[member] for member in meta["workspace_members"]}
    for crate in sorted(PURE):
        for bad in sorted(reachable(crate, edges) & IO_CRATES):
            yield f"{crate} does no I/O, but reaches {bad}"
    if "bigpeer-crdt" in reachable("bigpeer-log", edges):
        yield "bigpeer-log must not know what a document is, but reaches bigpeer-crdt"
    for crate in sorted(members - {"bigpeer-sql"}):
        if "datafusion" in edges.get(crate, ()):
            yield f"only bigpeer-sql may name datafusion, but {crate} depends on it"
    for crate in sorted(members - {"bigpeer-sql"} - COMPOSER - DOORS.keys()):
        if "datafusion" in reachable(crate, edges):
            yield f"{crate} must build without datafusion, but reaches it"
    for crate in sorted(LIGHT):
        for bad in sorted(reachable(crate, edges) & {"arrow", "parquet", "object_store"}):
            yield f"{crate} is built into the Terraform provider, but reaches {bad}"
    for service in sorted(SERVICES):
        for other in sorted(edges.get(service, set()) & SERVICES):
            yield f"services must not import each other, but {service} depends on {other}"
    for door, service in sorted(DOORS.items()):
        for other in sorted(edges.get(door, set()) & (SERVICES | DOORS.keys()) - {service}):
            yield f"a door imports its service and no other: {door} {service}, but also {other}"
    for crate in sorted(members - {"bigpeer-kafka"} - COMPOSER):
        if "rdkafka" in reachable(crate, edges):
            yield f"only bigpeer-kafka may reach librdkafka, but {crate} does"
    versions = {}
    for package in meta["packages"]:
        versions.setdefault(package["name"], set()).add(package["version"])
    for crate in ONE_VERSION:
        if len(versions.get(crate, ())) > 1:
            yield f"{crate} must be in the tree once, but is there as {', '.join(sorted(versions[crate]))}"


def tree_problems():
    files = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\n")
    home = str(Path.home())
    for name in filter(None, files):
        path = ROOT / name
        if not path.is_file() or name in ("LICENSE",) or path.suffix in (".bin", ".lock"):
            continue
        if re.search(r"(^|/)(utils?|helpers?|common|misc)(\.rs|/)", name):
            yield f"{name}: a room without a name; say what it is for"
        try:
            text = path.read_text()
        except UnicodeDecodeError:
            continue
        lines = text.count("\n")
        if path.suffix == ".rs" and lines > MAX_LINES:
            yield f"{name}: {lines} lines; split before {MAX_LINES}"
        if path.suffix == ".rs" and lines > 3 and not text.lstrip().startswith(("//", "#!", "//!")):
            yield f"{name}: the first lines must say what the file is for"
        if len(home) > 5 and f"{home}/" in text or f"{ROOT}/" in text:
            yield f"{name}: carries a path of this machine"


def main():
    problems = [*dependency_problems(metadata()), *tree_problems()]
    for problem in problems:
        print(f"house: {problem}", file=sys.stderr)
    if problems:
        sys.exit(1)
    print("house: in order")


if __name__ == "__main__":
    main()

"""SQL through the doors that people's tools use: the examples of docs/sql.md over Arrow Flight SQL and the PostgreSQL wire
protocol, and what an example does not show: permissions, limits, cancellation, bad input. Over the binary that `BIGPEER_BIN`
names.

Prints 'N passed, N failed'; ends with 1 when any failed."""

import json
import os
import re
import shutil
import socket
import struct
import subprocess
import sys
import threading
import traceback
import urllib.error
import urllib.request
from pathlib import Path

import adbc_driver_flightsql.dbapi as flightsql
import psycopg
from adbc_driver_flightsql import DatabaseOptions
from sqlalchemy import URL, create_engine, inspect

from running_server import ROOT, Server, free_port

FLIGHTS = [
    {"_id": 1, "carrier": "UA", "dep_delay": 2, "tailNum": "N1", "crew": {"pilot": "Ada"}, "tags": ["a", "b"], "note": "late"},
    {"_id": 2, "carrier": "AA", "dep_delay": -5, "tailNum": "N2", "crew": {"pilot": "Bo"}, "tags": [], "note": 7},
    {"_id": 3, "carrier": "UA", "dep_delay": 33, "tailNum": "N3", "crew": {"pilot": "Cy"}, "tags": ["c"], "note": {"x": 1}},
]
CHECKS = []


def check(function):
    CHECKS.append(function)
    return function


class World:
    def __init__(self, server, pg, flight):
        self.server, self.pg, self.flight = server, pg, flight
        self.app, self.key = server.credentials["app"], server.credentials["api_key"]
        server.dql("INSERT INTO flights DOCUMENTS (:a), (:b), (:c)", **dict(zip("abc", FLIGHTS)))
        self.transaction = server.dql("INSERT INTO `lost luggage` DOCUMENTS ({'_id': 'x', 'colour': 'red'})")["transactionId"]

    def connect(self, key=None, app=None, **options):
        host, port = self.pg.split(":")
        return psycopg.connect(
            host=host, port=port, dbname=app or self.app, user="analyst", password=key or self.key, connect_timeout=10, **options
        )

    def arrow(self, key=None, app=None, headers=()):
        options = {"username": app or self.app, "password": key or self.key}
        options |= {f"{DatabaseOptions.RPC_CALL_HEADER_PREFIX.value}{name}": value for name, value in headers}
        return flightsql.connect(f"grpc://{self.flight}", db_kwargs=options, autocommit=True)


def fails(action, *parts):
    """The error of `action`, which must hold each of `parts`."""
    try:
        action()
    except Exception as error:  # noqa: BLE001 - each driver has errors of its own
        text = str(error)
        missing = [part for part in parts if part not in text]
        assert not missing, f"{missing} not in: {text}"
        return error
    raise AssertionError("it was accepted")


def rows(connection, query, parameters=None):
    with connection.cursor() as cursor:
        if parameters is None:
            cursor.execute(query)
        else:
            cursor.execute(query, parameters)
        return cursor.fetchall()


@check
def examples_of_the_guide_run(world):
    guide = (ROOT / "docs/sql.md").read_text()
    examples = re.findall(r"```python\n(.*?)```", guide, re.S)
    assert len(examples) >= 4, len(examples)
    settings = {
        "BIGPEER_APP": world.app, "BIGPEER_KEY": world.key, "BIGPEER_PG": world.pg, "BIGPEER_FLIGHT": world.flight,
        "BIGPEER_TRANSACTION": str(world.transaction),
    }
    for example in examples:
        done = subprocess.run(
            [sys.executable, "-c", example], env={**os.environ, **settings}, capture_output=True, text=True, timeout=120
        )
        assert done.returncode == 0 and done.stdout, f"{example}\n{done.stdout}{done.stderr}"


def metric(world, name):
    with urllib.request.urlopen(f"{world.server.url}/metrics") as answer:
        text = answer.read().decode()
    found = re.findall(rf"^{name}(?:{{[^}}]*}})? ([0-9.e+-]+)$", text, re.M)
    return sum(map(float, found))


def running(world):
    return metric(world, "bigpeer_sql_queries_running")


def until(holds, what):
    deadline = threading.Event()
    for _ in range(600):
        if holds():
            return
        deadline.wait(0.05)
    raise AssertionError(f"after 30 s still not: {what}")


@check
def flight_answers_with_types(world):
    with world.arrow() as connection:
        with connection.cursor() as cursor:
            cursor.execute("SELECT _id, carrier, tags, crew FROM flights ORDER BY _id")
            table = cursor.fetch_arrow_table()
        assert table.column("_id").to_pylist() == [1, 2, 3]
        assert table.column("tags").to_pylist() == [["a", "b"], [], ["c"]]
        assert table.column("crew").to_pylist()[0] == {"pilot": "Ada"}
        assert rows(connection, "SELECT count(*) FROM flights WHERE carrier = $1 AND dep_delay > $2", ["UA", 10]) == [(1,)]
        injected = rows(connection, "SELECT count(*) FROM flights WHERE carrier = $1", ["UA' OR '1'='1"])
        assert injected == [(0,)], injected
        prepared = "SELECT _id FROM flights WHERE carrier = $1 ORDER BY _id"
        with connection.cursor() as cursor:
            for carrier, expected in [("UA", [(1,), (3,)]), ("AA", [(2,)]), (None, [])]:
                cursor.execute(prepared, [carrier])
                assert cursor.fetchall() == expected, carrier
        many = rows(connection, "SELECT sum(value) FROM generate_series(1, 300000)")
        assert many == [(45_000_150_000,)], many
        with connection.cursor() as cursor:
            cursor.execute("SELECT value FROM generate_series(1, 300000)")
            assert sum(batch.num_rows for batch in cursor.fetch_record_batch()) == 300_000


@check
def flight_lists_tables(world):
    with world.arrow() as connection:
        tables = tables_of(connection)
        assert {"flights", "lost luggage"} <= tables, tables
        schema = connection.adbc_get_table_schema("flights")
        assert "carrier" in schema.names, schema
        assert connection.adbc_get_info()["vendor_name"] == "bigpeer"


def tables_of(connection):
    """The names of the tables that a connection sees."""
    objects = connection.adbc_get_objects(depth="tables").read_all().to_pylist()
    return {
        table["table_name"]
        for catalogue in objects
        for schema in catalogue["catalog_db_schemas"]
        for table in schema["db_schema_tables"]
    }


@check
def flight_refuses(world):
    fails(lambda: rows(world.arrow(key="bpk_wrong"), "SELECT 1"), "no valid API key")
    fails(lambda: rows(world.arrow(app="another"), "SELECT 1"), "no valid API key")
    fails(lambda: world.arrow(key="bpk_wrong").adbc_get_objects(depth="tables").read_all(), "no valid API key")
    with world.arrow() as connection:
        fails(lambda: rows(connection, "DROP TABLE flights"), "only queries")
        fails(lambda: rows(connection, "SELECT nothing FROM flights"), "nothing")
        fails(lambda: rows(connection, "SELECT 10 / (value - 100000) FROM generate_series(1, 200000)"), "ivi")
        fails(lambda: rows(connection, f"SELECT {'1 + ' * 100_000} 1"), "longer than 262144 bytes")
        assert rows(connection, "SELECT 1") == [(1,)], "the next one works"
    future = [("x-bigpeer-as-of", "99999999999")]
    fails(lambda: rows(world.arrow(headers=future), "SELECT count(*) FROM flights"), "not visible")
    fails(lambda: rows(world.arrow(headers=[("x-bigpeer-as-of", "soon")]), "SELECT 1"), "whole number")
    before = [("x-bigpeer-as-of", str(world.transaction))]
    world.server.dql("INSERT INTO flights DOCUMENTS ({'_id': 99, 'carrier': 'ZZ'})")
    assert rows(world.arrow(headers=before), "SELECT count(*) FROM flights") == [(3,)]
    assert rows(world.arrow(), "SELECT count(*) FROM flights") == [(4,)]
    world.server.dql("DELETE FROM flights WHERE _id = 99")


@check
def flight_gives_up_what_nobody_reads(world):
    before = running(world)
    for _ in range(12):
        connection = world.arrow()
        cursor = connection.cursor()
        cursor.execute("SELECT value FROM generate_series(1, 1000000000000)")
        cursor.fetchone()
        cursor.close()
        connection.close()
    until(lambda: running(world) == before, "every query has ended")


@check
def flight_survives_bad_bytes(world):
    host, port = world.flight.split(":")
    preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
    for bytes_ in (b"GET / HTTP/1.1\r\n\r\n", b"\xff" * 4096, preface + b"\xff" * 4096, preface, b""):
        with socket.create_connection((host, int(port)), timeout=10) as connection:
            connection.sendall(bytes_)
    assert rows(world.arrow(), "SELECT 1") == [(1,)]


@check
def postgres_answers_with_types(world):
    with world.connect() as connection:
        query = "SELECT _id, carrier, tags, crew, note, dep_delay * 1.5 FROM flights ORDER BY _id"
        for binary in (False, True):
            with connection.cursor(binary=binary) as cursor:
                found = cursor.execute(query).fetchall()
            assert found[0] == (1, "UA", ["a", "b"], {"pilot": "Ada"}, "late", 3.0), (binary, found[0])
            assert [row[4] for row in found] == ["late", 7, {"x": 1}]
        for parameters in (["UA", 10], ["UA", "10"]):
            found = connection.execute("SELECT _id FROM flights WHERE carrier = %s AND dep_delay > %s", parameters).fetchall()
            assert found == [(3,)], (parameters, found)
        injected = connection.execute("SELECT count(*) FROM flights WHERE carrier = %s", ["UA' OR '1'='1"]).fetchone()
        assert injected == (0,), injected
        assert connection.execute('SELECT "tailNum" FROM flights WHERE _id = 2').fetchall() == [("N2",)]
        connection.prepare_threshold = 0
        for number in range(3):
            assert connection.execute("SELECT carrier FROM flights WHERE _id = %s", [number + 1]).fetchone()
        with connection.cursor(name="pieces") as cursor:
            fails(lambda: cursor.execute("SELECT 1"), "DECLARE")


@check
def postgres_sessions_keep_their_promises(world):
    with world.connect() as connection:
        assert connection.execute("SHOW server_version").fetchone() == ("16.0",)
        assert connection.execute("SHOW transaction isolation level").fetchone() == ("read committed",)
        fails(lambda: connection.execute("SELECT nothing FROM flights"), "nothing")
        fails(lambda: connection.execute("SELECT 1"), "ignored")
        connection.rollback()
        assert connection.execute("SELECT count(*) FROM flights").fetchone() == (3,)
        seen = int(connection.execute("SHOW bigpeer.transaction").fetchone()[0])
        later = world.server.dql("INSERT INTO log DOCUMENTS ({'_id': 1})")["transactionId"]
        assert later > seen
        assert connection.execute("SELECT count(*) FROM log").fetchone() == (1,)
        connection.execute(f"SET bigpeer.as_of = {seen}")
        fails(lambda: connection.execute("SELECT count(*) FROM log"), "log")
        connection.rollback()
        connection.execute("RESET bigpeer.as_of")
        fails(lambda: connection.execute("SET nonsense = 1"), "nonsense")
        connection.rollback()
    with world.connect(autocommit=True) as connection:
        many = connection.execute("SELECT 1; SELECT 2 -- ; SELECT 3")
        assert many.fetchone() == (1,) and many.nextset() and many.fetchone() == (2,)


@check
def postgres_refuses(world):
    fails(lambda: world.connect(key="bpk_wrong"), "no valid API key")
    fails(lambda: world.connect(app="another"), "no valid API key")
    fails(lambda: world.connect(app="../etc"), "no valid API key")
    with world.connect(autocommit=True) as connection:
        fails(lambda: connection.execute("DROP TABLE flights"), "only queries")
        fails(lambda: connection.execute("INSERT INTO flights VALUES (1)"), "only queries")
        fails(lambda: connection.execute("COPY flights TO '/tmp/flights.csv'"), "only queries")
        fails(lambda: connection.execute("COPY flights TO STDOUT"), "STDOUT")
        error = fails(lambda: connection.execute("SELECT *\nFORM flights"), "FORM")
        assert error.diag.statement_position is not None
        fails(lambda: connection.execute("SELECT * FROM elsewhere"), "elsewhere")
        error = fails(lambda: connection.execute("SELECT * FROM elsewhere"), "not found")
        assert error.sqlstate == "42P01", error.sqlstate
        fails(lambda: connection.execute("SELECT 10 / (value - 100000) FROM generate_series(1, 200000)"), "ivi")
        assert connection.execute("SELECT 1").fetchone() == (1,), "the next one works"


@check
def postgres_cancels(world):
    before = running(world)
    with world.connect(autocommit=True) as connection:
        timer = threading.Timer(0.5, connection.cancel)
        timer.start()
        error = fails(
            lambda: connection.execute("SELECT count(*) FROM generate_series(1, 1000000000000) WHERE value % 7 = 8"), "cancelled"
        )
        assert error.sqlstate == "57014"
        assert connection.execute("SELECT 1").fetchone() == (1,), "the next one works"
    # Who just goes away stops its query, too.
    connection = world.connect(autocommit=True)
    thread = threading.Thread(target=lambda: silent(connection, "SELECT count(*) FROM generate_series(1, 1000000000000)"))
    thread.start()
    until(lambda: running(world) > before, "the query runs")
    os.close(os.dup(connection.fileno()))
    socket.socket(fileno=os.dup(connection.fileno())).shutdown(socket.SHUT_RDWR)
    thread.join()
    until(lambda: running(world) == before, "the query has ended")


def silent(connection, query):
    try:
        connection.execute(query)
    except psycopg.Error:
        pass


@check
def postgres_takes_any_bytes(world):
    host, port = world.pg.split(":")

    def send(data):
        with socket.create_connection((host, int(port)), timeout=30) as client:
            client.sendall(data)
            client.settimeout(30)
            answer = b""
            try:
                while part := client.recv(65536):
                    answer += part
            except ConnectionError:
                pass
            return answer

    for data in (
        b"GET / HTTP/1.1\r\n\r\n",
        struct.pack("!ii", 1 << 30, 196608),
        struct.pack("!ii", 9, 196608) + b"x",
        struct.pack("!i", -1) + b"\x00" * 64,
        struct.pack("!ii", 8, 131072),
    ):
        answer = send(data)
        assert answer == b"" or answer.startswith(b"E"), (data, answer)
    startup = b"user\0a\0database\0" + world.app.encode() + b"\0\0"
    startup = struct.pack("!ii", len(startup) + 8, 196608) + startup
    huge = b"Q" + struct.pack("!i", 1 << 30)
    assert b"28P01" not in send(startup + huge), "a query before the password"
    password = world.key.encode() + b"\0"
    password = b"p" + struct.pack("!i", len(password) + 4) + password
    assert b"08P01" in send(startup + password + huge)
    with world.connect() as connection:
        assert connection.execute("SELECT 1").fetchone() == (1,)


@check
def sqlalchemy_looks_around(world):
    host, port = world.pg.split(":")
    engine = create_engine(URL.create("postgresql+psycopg", "me", world.key, host, int(port), world.app))
    found = inspect(engine)
    assert set(found.get_table_names()) >= {"flights", "lost luggage"}, found.get_table_names()
    assert found.get_schema_names() and found.has_table("flights") and not found.has_table("elsewhere")
    columns = {column["name"]: str(column["type"]) for column in found.get_columns("flights")}
    assert columns["carrier"] == "TEXT" and columns["dep_delay"] == "BIGINT" and columns["crew"] == "JSON", columns
    assert found.get_view_names() == []
    assert found.get_pk_constraint("flights")["constrained_columns"] == []
    assert found.get_foreign_keys("flights") == [] and found.get_indexes("flights") == []
    engine.dispose()


@check
def psql_describes(world):
    psql = shutil.which("psql")
    assert psql is not None, "psql is not installed (Debian: postgresql-client)"
    host, port = world.pg.split(":")

    def run(*commands):
        arguments = [part for command in commands for part in ("-c", command)]
        done = subprocess.run(
            [psql, "-X", "-h", host, "-p", port, "-d", world.app, "-U", "me", *arguments],
            env={**os.environ, "PGPASSWORD": world.key}, capture_output=True, text=True, timeout=120,
        )
        assert done.returncode == 0 and "ERROR" not in done.stderr, f"{commands}: {done.stdout}{done.stderr}"
        return done.stdout

    assert "flights" in run("\\dt") and "lost luggage" in run("\\d")
    described = run("\\d flights")
    assert "carrier" in described and "bigint" in described, described
    assert world.app in run("\\l") and "public" in run("\\dn")
    assert "UA" in run("SELECT carrier FROM flights ORDER BY _id") and "(3 rows)" in run("SELECT * FROM flights")
    for other in ("\\dv", "\\di", "\\ds", "\\df", "\\du", "\\conninfo"):
        run(other)


@check
def keys_hold_at_every_door(world):
    """A key with rules sees its rows, and nothing else; one that has ended opens nothing more."""
    permissions = {"read": {"queriesByCollection": {"flights": ["carrier == 'UA'"]}}, "write": {}}
    key = make_key(world, "ua", permissions)
    assert key, "no key was made"
    with world.connect(key=key, autocommit=True) as connection, world.arrow(key=key) as arrow:
        for ask in (connection, arrow):
            assert rows(ask, "SELECT count(*) FROM flights") == [(2,)]
            assert rows(ask, "SELECT _id FROM flights WHERE carrier = 'AA' OR true ORDER BY _id") == [(1,), (3,)]
            fails(lambda ask=ask: rows(ask, 'SELECT * FROM "lost luggage"'), "not found")
        assert rows(connection, "SELECT relname FROM pg_class") == [("flights",)]
        assert tables_of(arrow) == {"flights"}
        fails(lambda: arrow.adbc_get_table_schema("lost luggage"), "")
        admin(world, "DELETE", f"apps/{world.app}/api-keys/ua")
        fails(lambda: rows(arrow, "SELECT count(*) FROM flights"), "no valid API key")
        fails(lambda: rows(world.arrow(key=key), "SELECT 1"), "no valid API key")
    nothing = make_key(world, "nothing", {"read": {}, "write": {"everything": True}})
    fails(lambda: rows(world.arrow(key=nothing), "SELECT 1"), "may not read anything")


@check
def another_app_is_out_of_reach(world):
    admin(world, "PUT", "tenants/elsewhere")
    other = admin(world, "PUT", "tenants/elsewhere/apps/other")["id"]
    key = make_key(world, "reads", {"qlVersion": 1, "read": {"everything": True}}, app=other)
    assert key, "no key was made"
    for doors in (world.arrow, lambda **who: world.connect(autocommit=True, **who)):
        with doors(app=other, key=key) as connection:
            for name in ("flights", f'"{world.app}".flights', f'bigpeer."{world.app}".flights', f'"{world.app}/flights"', '"../flights"'):
                fails(lambda name=name: rows(connection, f"SELECT * FROM {name}"), "")
            assert rows(connection, "SELECT count(*) FROM information_schema.tables WHERE table_name = 'flights'") == [(0,)]
        fails(lambda doors=doors: rows(doors(app=world.app, key=key), "SELECT 1"), "")
        fails(lambda doors=doors: rows(doors(app=other), "SELECT 1"), "")
    with world.arrow(app=other, key=key) as connection:
        assert "flights" not in tables_of(connection)


@check
def keys_have_limits_at_every_door(world):
    permissions = {"qlVersion": 1, "read": {"everything": True}}
    key = make_key(world, "brief", permissions, limits={"sql_time_secs": 1})
    assert key, "no key was made"
    endless = "SELECT count(*) FROM generate_series(1, 1000000000000) WHERE value % 7 = 8"
    with world.connect(key=key, autocommit=True) as connection, world.arrow(key=key) as arrow:
        error = fails(lambda: rows(connection, endless), "longer than 1 s")
        assert error.sqlstate == "57014", error.sqlstate
        fails(lambda: rows(arrow, endless), "longer than 1 s")
        for ask in (connection, arrow):
            assert rows(ask, "SELECT 1") == [(1,)], "the next one works"
    assert make_key(world, "unknown", permissions, limits={"sql_nonsense": 1}) is None


def admin(world, method, path, body=None):
    """What the admin API answers; none for an error."""
    request = urllib.request.Request(
        f"{world.server.url}/admin/v1/{path}",
        data=None if body is None else json.dumps(body).encode(),
        headers={"Authorization": f"Bearer {world.server.credentials['admin_token']}", "Content-Type": "application/json"},
        method=method,
    )
    try:
        with urllib.request.urlopen(request) as answer:
            return json.loads(answer.read() or "{}")
    except urllib.error.HTTPError:
        return None


def make_key(world, name, permissions, app=None, **more):
    made = admin(world, "PUT", f"apps/{app or world.app}/api-keys/{name}", {"permissions": permissions, **more})
    return made and made.get("key")


def main():
    pg, flight = (f"127.0.0.1:{free_port()}" for _ in range(2))
    passed = failed = 0
    with Server(Path(ROOT / ".cache/sql-clients"), "--listen-pg", pg, "--listen-flight", flight) as server:
        world = World(server, pg, flight)
        wanted = sys.argv[1:]
        for function in CHECKS:
            if wanted and function.__name__ not in wanted:
                continue
            try:
                function(world)
                passed += 1
            except Exception:  # noqa: BLE001 - the next check says something, too
                failed += 1
                print(f"--- {function.__name__}")
                traceback.print_exc()
        log = server.log.read_text()
    unexpected = [line for line in log.splitlines() if re.search(r"\b(ERROR|WARN)\b", line)]
    if unexpected:
        failed += 1
        print("--- the server's log\n" + "\n".join(unexpected[:20]))
    print(f"{passed} passed, {failed} failed")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()

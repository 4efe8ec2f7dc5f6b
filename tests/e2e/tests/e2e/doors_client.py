"""What callers see of the orders through PostgreSQL's protocol and Arrow Flight SQL.  Arguments: PG FLIGHT APP CREDENTIALS, the
last a JSON list.  Prints a list of {"pg": {"status", "text"}, "flight": …}, `status` one of not let in, refused, answered."""

import json
import sys

import adbc_driver_flightsql.dbapi as flightsql
import psycopg

QUERY = "SELECT * FROM orders ORDER BY _id"


def answer(connect, query):
    try:
        connection = connect()
    except Exception as error:
        return {"status": "not let in", "text": str(error)}
    try:
        return {"status": "answered", "text": str(query(connection))}
    except Exception as error:
        # A Flight client may only say who it is with its first query.
        unauthenticated = "unauthenticated" in str(error).lower() or "401" in str(error)
        return {"status": "not let in" if unauthenticated else "refused", "text": str(error)}
    finally:
        connection.close()


def over_flight(connection):
    with connection.cursor() as cursor:
        cursor.execute(QUERY)
        return cursor.fetchall()


def main(pg, flight, app, credentials):
    host, port = pg.split(":")
    answers = []
    for credential in json.loads(credentials):
        options = {"username": app, "password": credential}
        answers.append(
            {
                "pg": answer(
                    lambda: psycopg.connect(
                        host=host, port=port, dbname=app, user="analyst", password=credential, connect_timeout=10
                    ),
                    lambda connection: connection.execute(QUERY).fetchall(),
                ),
                "flight": answer(lambda: flightsql.connect(f"grpc://{flight}", db_kwargs=options, autocommit=True), over_flight),
            }
        )
    print(json.dumps(answers))


main(*sys.argv[1:])

"""A client below TLS.  Arguments:
  color ADDRESS APP KEY CA_FILE   what a Flight SQL server says is the color of the first car
  certificate HOST PORT           the certificate that a server shows, in PEM"""

import ssl
import sys
from pathlib import Path

import adbc_driver_flightsql.dbapi as flightsql
from adbc_driver_flightsql import DatabaseOptions


def color(address, app, key, ca):
    options = {"username": app, "password": key, DatabaseOptions.TLS_ROOT_CERTS.value: Path(ca).read_text()}
    with flightsql.connect(f"grpc+tls://{address}", db_kwargs=options, autocommit=True) as connection:
        with connection.cursor() as cursor:
            cursor.execute("SELECT color FROM cars")
            return cursor.fetchone()[0]


def certificate(host, port):
    return ssl.get_server_certificate((host, int(port)))


print({"color": color, "certificate": certificate}[sys.argv[1]](*sys.argv[2:]))

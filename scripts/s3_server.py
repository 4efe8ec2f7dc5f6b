"""An S3 server for tests and benchmarks: moto, on a free port, with a bucket `test`. Prints where it is, and ends when its standard
input does. Its threads look whether an object is there and put it in two steps: a lock makes one of these, as it is in S3. And it takes
whatever comes: here, a request without any signature, and a signed URL that was altered or has ended, is answered 403."""

import hashlib
import hmac
import logging
import sys
import threading
from datetime import UTC, datetime, timedelta
from urllib.parse import parse_qsl, quote

import boto3
from moto.s3.responses import S3Response
from moto.server import DomainDispatcherApplication, ThreadedMotoServer

SECRET = "test"
one_at_a_time, put_object = threading.Lock(), S3Response.put_object
moto_dispatch = DomainDispatcherApplication.__call__


def put(self):
    with one_at_a_time:
        return put_object(self)


def is_signed(environ):
    path, _, query = environ["RAW_URI"].partition("?")
    query = dict(parse_qsl(query, keep_blank_values=True))
    given = query.pop("X-Amz-Signature", None)
    if given is None:
        return "HTTP_AUTHORIZATION" in environ
    begin = datetime.strptime(query["X-Amz-Date"], "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
    if begin + timedelta(seconds=int(query["X-Amz-Expires"])) < datetime.now(UTC):
        return False
    pairs = "&".join(sorted(f"{quote(key, safe='')}={quote(value, safe='')}" for key, value in query.items()))
    request = [environ["REQUEST_METHOD"], path, pairs, f"host:{environ['HTTP_HOST']}", "", "host", "UNSIGNED-PAYLOAD"]
    scope = query["X-Amz-Credential"].split("/", 1)[1]
    digest = hashlib.sha256("\n".join(request).encode()).hexdigest()
    key = f"AWS4{SECRET}".encode()
    for part in [*scope.split("/"), "\n".join(["AWS4-HMAC-SHA256", query["X-Amz-Date"], scope, digest])]:
        key = hmac.new(key, part.encode(), hashlib.sha256).digest()
    return hmac.compare_digest(key.hex(), given)


def dispatch(self, environ, start_response):
    if is_signed(environ):
        return moto_dispatch(self, environ, start_response)
    start_response("403 Forbidden", [("Content-Type", "text/plain")])
    return [b"not signed, or altered"]


def main():
    DomainDispatcherApplication.__call__ = dispatch
    S3Response.put_object = put
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    _, port = server.get_host_and_port()
    url = f"http://127.0.0.1:{port}"
    keys = {"aws_access_key_id": "test", "aws_secret_access_key": SECRET}
    boto3.client("s3", endpoint_url=url, region_name="us-east-1", **keys).create_bucket(Bucket="test")
    print(url, flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    main()

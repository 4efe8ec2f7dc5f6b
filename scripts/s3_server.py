"""An S3 server for tests and benchmarks: moto, on a free port, with a bucket `test`. Prints where it is, and ends when its standard
input does. Its threads look whether an object is there and put it in two steps: a lock makes one of these, as it is in S3."""

import logging
import sys
import threading

import boto3
from moto.s3.responses import S3Response
from moto.server import ThreadedMotoServer

one_at_a_time, put_object = threading.Lock(), S3Response.put_object


def put(self):
    with one_at_a_time:
        return put_object(self)


def main():
    S3Response.put_object = put
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    _, port = server.get_host_and_port()
    url = f"http://127.0.0.1:{port}"
    keys = {"aws_access_key_id": "test", "aws_secret_access_key": "test"}
    boto3.client("s3", endpoint_url=url, region_name="us-east-1", **keys).create_bucket(Bucket="test")
    print(url, flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    main()

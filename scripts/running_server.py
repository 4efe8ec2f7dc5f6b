"""Starts the release binary over a fresh folder, for the demo and the benchmark, and talks to it over HTTP."""

import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BINARY = Path(os.environ.get("BIGPEER_BIN", ROOT / "target/release/bigpeer"))


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Server:
    """`with Server(folder) as server:`; the folder's old content is removed."""

    def __init__(self, folder, *flags):
        if not BINARY.exists():
            sys.exit(f"{BINARY} does not exist; run `make build`")
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        self.data_dir = folder / "data"
        self.log = folder / "server.log"
        self.url = f"http://127.0.0.1:{free_port()}"
        self.flags = flags
        self.process = None

    def start(self):
        """Starts the process; seconds until it is ready."""
        begun = time.monotonic()
        command = [BINARY, "serve", "--data-dir", self.data_dir, "--listen", self.url.removeprefix("http://"), *self.flags]
        with open(self.log, "a") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log)
        while True:
            try:
                urllib.request.urlopen(f"{self.url}/readyz").read()
                break
            except (urllib.error.URLError, ConnectionError):
                if self.process.poll() is not None:
                    sys.exit(f"the server stopped:\n{self.log.read_text()}")
                time.sleep(0.005)
        seconds = time.monotonic() - begun
        self.credentials = json.loads((self.data_dir / "dev-credentials.json").read_text())
        return seconds

    def kill(self):
        self.process.kill()
        self.process.wait()

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *_):
        self.process.terminate()
        self.process.wait()

    def post(self, path, body, token=None, method="POST"):
        request = urllib.request.Request(
            f"{self.url}{path}",
            None if body is None else json.dumps(body).encode(),
            {"Content-Type": "application/json", "Authorization": f"Bearer {token or self.credentials['api_key']}"},
            method=method,
        )
        try:
            return json.loads(urllib.request.urlopen(request).read() or b"null")
        except urllib.error.HTTPError as error:
            sys.exit(f"{path}: {error.code}: {error.read().decode()}")

    def dql(self, statement, **args):
        return self.post(f"/{self.credentials['app']}/api/v5/store/execute", {"statement": statement, "args": args})

    def sql(self, query):
        return self.post(f"/{self.credentials['app']}/sql", {"query": query, "format": "json"})

    def configure(self, collection, settings):
        """What is to be done with a collection besides keeping it."""
        return self.admin("PUT", f"collections/{collection}", settings)

    def admin(self, method, path, body=None):
        """Asks the admin API about the app."""
        return self.post(f"/admin/v1/apps/{self.credentials['app']}/{path}", body, self.credentials["admin_token"], method)

    def compact(self):
        """Folds everything into Parquet now."""
        return self.admin("POST", "compact", {})

    def command(self, *args, **options):
        """Runs a client command of the binary; its standard output."""
        line = [BINARY, *args, "--credentials", self.data_dir / "dev-credentials.json"]
        done = subprocess.run(line, text=True, stdout=subprocess.PIPE, **options)
        if done.returncode != 0:
            sys.exit(f"bigpeer {' '.join(map(str, args))} failed with {done.returncode}")
        return done.stdout

    def resident_mib(self):
        for line in Path(f"/proc/{self.process.pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) / 1024
        raise RuntimeError("no VmRSS")

"""A Kafka broker of one process for the tests, from the package noida-db. It keeps Kafka's promises about transactions (what is
open or aborted is not shown, producers of one id fence each other), holds everything in memory, and writes it to disk when it
is ended in order: `kill -9` forgets, `stop` does not."""

import shutil
import subprocess
import sys
import time
from pathlib import Path

from confluent_kafka.admin import AdminClient

from running_server import free_port

PROGRAM = Path(sys.executable).with_name("noida-db")


class Broker:
    """`with Broker(folder) as broker:`; the folder's old content is removed."""

    def __init__(self, folder):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        self.folder = folder
        self.port = free_port()
        self.address = f"127.0.0.1:{self.port}"
        self.process = None

    def start(self):
        command = [PROGRAM, "start", "--only", "kafka", "--kafka-port", str(self.port), "--data-dir", self.folder / "data"]
        with open(self.folder / "broker.log", "a") as log:
            # A group of its own: the program starts another.
            self.process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
        deadline = time.monotonic() + 30
        while True:
            try:
                AdminClient({"bootstrap.servers": self.address, "log_level": 0}).list_topics(timeout=1)
                return
            except Exception:
                if self.process.poll() is not None or time.monotonic() > deadline:
                    sys.exit(f"the broker did not start:\n{(self.folder / 'broker.log').read_text()}")

    def stop(self):
        """Ends it in order; what it holds is written."""
        subprocess.run([PROGRAM, "down", "--data-dir", self.folder / "data"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self.process.wait(timeout=60)

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *_):
        self.stop()

"""A worker process whose engine is a FakeCore; started by tests as `python fake_worker.py DESCRIPTOR`."""

import sys

from fake_core import FakeCore
from inferno.engine import worker_main

if __name__ == "__main__":
    worker_main.run(int(sys.argv[1]), FakeCore)

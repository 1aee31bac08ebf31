"""Compete for a run's lease in a process of its own, and note every moment at which it may write.

python lease_holder.py LOCATION LOG DELAY_S NAME
"""

import sys
import time
from pathlib import Path

from raysgd_local.errors import InputError
from raysgd_local.run_files.lease import Lease
from raysgd_local.run_files.storage import Storage


def main() -> None:
    location, log, delay_s, name = sys.argv[1:]
    storage = Storage.at(location)
    time.sleep(float(delay_s))
    while True:
        try:
            lease = Lease.take(storage, "run").keep()
            break
        except InputError:
            time.sleep(0.2)
    with Path(log).open("a", buffering=1) as notes:
        while lease.may_write():
            notes.write(f"{time.time()} {name}\n")
            time.sleep(0.005)


if __name__ == "__main__":
    main()

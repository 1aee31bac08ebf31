"""One cluster for all tests here: brought up, and taken down again, by the commands of `docs/cluster.md`."""

from __future__ import annotations

import shutil
import signal
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from laboratory import Laboratory, laboratory
from machines import missing, wait_for
from page import the_command

NODES = 3

# Told to end, it takes the machines down first.
signal.signal(signal.SIGTERM, signal.default_int_handler)


@pytest.fixture(scope="session")
def lab() -> Iterator[Laboratory]:
    """Three machines with 200 Mbit/s, Ray on all of them, and the tunnel to the head."""
    if why := missing():
        pytest.skip(why)
    folder = Path(tempfile.mkdtemp(prefix="rsl-hosts-"))
    try:
        with laboratory(NODES, folder / "lab", mbit=200) as lab:
            lab.run(the_command("ray get-auth-token"))
            lab.run(the_command("ray up"), 240)
            lab.wait_for_nodes(NODES, 120)
            with lab.beside(the_command("ray dashboard").rstrip(" &"), "tunnel.log"):
                wait_for(
                    lambda: lab.laptop.run("echo > /dev/tcp/127.0.0.1/8265").returncode == 0, 60, "the tunnel"
                )
                yield lab
            lab.run(the_command("ray down"))
            assert "raylet" not in lab.nodes[0].processes()
    finally:
        shutil.rmtree(folder, ignore_errors=True)

"""Real runs whose workers listen where the configuration says."""

from __future__ import annotations

import json

import pytest

from raysgd_local.cli import app

pytestmark = pytest.mark.ray

TWO = ["--set", "workers.min=2", "--set", "workers.max=2", "--name", "run"]


def test_an_interface_that_no_machine_has_ends_the_run_before_it_begins(cluster, tmp_path, capsys):
    words = ["train", *TWO, "--storage", str(tmp_path), "--address", cluster]
    assert app.run([*words, "--set", "network.interface=nowhere"]) == 2
    assert (
        capsys.readouterr().err.splitlines()[-1].startswith("error: network.interface: 'nowhere' is not allowed")
    )
    assert not (tmp_path / "run").exists()


@pytest.mark.long
def test_a_run_over_ipv6_keeps_to_its_ports(cluster, tmp_path):
    words = ["train", *TWO, "--storage", str(tmp_path), "--address", cluster, "--set", "task.epochs=2"]
    network = ["network.subnet=::1/128", "network.first_port=40000", "network.last_port=40999"]
    assert app.run([*words, *(word for setting in network for word in ("--set", setting))]) == 0
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert (result["status"], result["samples"], result["samples_lost"]) == ("finished", 2 * 1437, 0)

"""The lease over real files and processes."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

from raysgd_local.errors import InputError
from raysgd_local.run_files import lease_protocol as protocol
from raysgd_local.run_files.lease import FOLDER, Lease
from raysgd_local.run_files.storage import Storage

HOLDER = """
import sys, time
from raysgd_local.run_files.lease import Lease
from raysgd_local.run_files.storage import Storage
lease = Lease.take(Storage.at(sys.argv[1]), "run").keep()
print("has it", flush=True)
time.sleep(60)
"""


@pytest.fixture
def holder(tmp_path):
    process = subprocess.Popen([sys.executable, "-c", HOLDER, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "has it\n"
    yield process
    process.kill()
    process.wait()


def test_a_second_command_is_refused_with_where_the_first_one_runs(tmp_path, holder):
    with pytest.raises(InputError, match=f"^name: 'run' is not allowed.*process {holder.pid} on .*, since 2"):
        Lease.take(Storage.at(str(tmp_path)), "run")


def test_a_killed_holder_s_run_is_had_at_once_on_the_same_machine(tmp_path, holder):
    holder.kill()
    holder.wait()
    lease = Lease.take(Storage.at(str(tmp_path)), "run")
    assert lease.may_write()
    assert len(list((tmp_path / FOLDER).iterdir())) == 1


def test_a_holder_that_stands_still_keeps_the_run(tmp_path, holder, monkeypatch):
    monkeypatch.setattr(protocol, "LEASE_S", 1.0)
    holder.send_signal(signal.SIGSTOP)
    with pytest.raises(InputError, match="no other command"):
        Lease.take(Storage.at(str(tmp_path)), "run")


def test_a_released_run_is_free_and_leaves_no_file(tmp_path):
    storage = Storage.at(str(tmp_path))
    Lease.take(storage, "run").keep().release()
    assert not tmp_path.joinpath(FOLDER).exists()
    Lease.take(storage, "run").release()


def test_who_finds_another_holder_on_renewing_may_not_write(tmp_path):
    storage = Storage.at(str(tmp_path))
    lease = Lease.take(storage, "run")
    storage.under(FOLDER).delete_file(f"{lease.claim.id}.json")
    other = Lease.take(storage, "run")
    lease.renew()
    assert not lease.may_write()
    assert "has taken the run over" in lease.lost
    assert other.may_write()


def test_a_process_that_shares_a_lease_keeps_it(tmp_path):
    storage = Storage.at(str(tmp_path))
    lease = Lease.take(storage, "run")
    driver = Lease.shared(storage, lease.claim)
    assert driver.may_write()
    assert len(driver.claim.processes) == 2

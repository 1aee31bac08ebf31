"""Machines that take ssh: hosts with processes, a home, a name and a Ray folder of their own. Needs root.

They are namespaces of this machine. Its files are theirs too, but for the home, which lies at `HOME`, Ray's folder, and
`SHARED`, which is one directory for all, as a network file system would be.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "benchmarks"))

from lib.hosts import Host, hosts  # noqa: E402

HOME, SHARED = "/media", "/srv"
_NEEDED = ("ip", "tc", "unshare", "nsenter", "ssh", "ssh-keygen", "rsync", "sshd", "ps", "pkill")

# The first process of a machine. What is mounted here is seen by its own processes alone.
_START = f"""
set -e
mount --make-rprivate /
mkdir -p /tmp/ray /run/sshd
mount --bind "$1/home" {HOME}
mount --bind "$1/ray" /tmp/ray
mount --bind "$1/../shared" {SHARED}
mount --bind "$1/passwd" /etc/passwd
hostname "$2"
exec "$3" -D -e -f "$1/sshd_config"
"""


def missing() -> str:
    """Why there can be no machines here, or nothing."""
    if os.geteuid() != 0:
        return "machines are namespaces, which only root can make"
    absent = [name for name in _NEEDED if _path(name) is None]
    if absent:
        return f"not installed: {', '.join(absent)}"
    tried = subprocess.run(["unshare", "--net", "--pid", "--fork", "--mount-proc", "true"], capture_output=True)
    return "" if tried.returncode == 0 else f"no namespaces: {tried.stderr.decode().strip()}"


def _path(name: str) -> str | None:
    return shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")


@dataclass
class Machine:
    """One machine. `folder` keeps what is its own while it is off."""

    host: Host
    folder: Path
    _running: subprocess.Popen[bytes] | None = field(default=None, repr=False)

    @property
    def address(self) -> str:
        return self.host.address

    def switch_on(self) -> None:
        sshd = _path("sshd")
        assert sshd is not None
        apart = ["unshare", "--pid", "--fork", "--mount", "--mount-proc", "--uts", "--kill-child"]
        with (self.folder / "sshd.log").open("ab") as log:
            start = ["bash", "-c", _START, "start", str(self.folder), self.host.name, sshd]
            self._running = subprocess.Popen([*self.host.prefix, *apart, *start], stdout=log, stderr=log)
        wait_for(lambda: self._first() is not None and self.run("true").returncode == 0, 10)

    def switch_off(self) -> None:
        """All its processes end at once, as at a loss of power."""
        if self._running is not None:
            self._running.kill()
            self._running.wait()
            self._running = None

    def _first(self) -> int | None:
        """The process that all others of the machine end with."""
        assert self._running is not None
        try:
            children = Path(f"/proc/{self._running.pid}/task/{self._running.pid}/children").read_text().split()
        except OSError:
            return None
        return int(children[0]) if children else None

    def command(self, line: str, environment: Mapping[str, str] | None = None) -> list[str]:
        """What starts a line of shell on the machine, as its user would after logging in."""
        inside = ["nsenter", f"--target={self._first()}", "--mount", "--uts", "--net", "--pid"]
        names = [f"{key}={value}" for key, value in {"HOME": HOME, "TERM": "dumb", **(environment or {})}.items()]
        return [*inside, "env", "--ignore-environment", *names, "bash", "-lc", f". ~/.bashrc; cd ~; {line}"]

    def run(self, line: str, timeout_s: float = 120) -> subprocess.CompletedProcess[str]:
        return subprocess.run(self.command(line), capture_output=True, text=True, timeout=timeout_s, check=False)

    def processes(self) -> str:
        """What runs there, a process a line."""
        return self.run("ps -eo pid,args").stdout


@contextmanager
def machines(count: int, folder: Path, mbit: float | None = None) -> Iterator[list[Machine]]:
    """`count` machines that let each other in by ssh; whatever runs on them ends with the block."""
    (folder / "shared").mkdir(parents=True)
    _call("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / "key"))
    with hosts(count, mbit) as found:
        made = [_furnish(host, folder) for host in found]
        try:
            for machine in made:
                machine.switch_on()
            yield made
        finally:
            for machine in made:
                machine.switch_off()


def _furnish(host: Host, folder: Path) -> Machine:
    own = folder / host.name
    ssh = own / "home" / ".ssh"
    ssh.mkdir(parents=True)
    (own / "ray").mkdir()
    shutil.copy(folder / "key", ssh / "id_ed25519")
    shutil.copy(folder / "key.pub", ssh / "authorized_keys")
    (own / "home" / ".bashrc").write_text(_profile())
    (own / "passwd").write_text(
        f"root:x:0:0:root:{HOME}:/bin/bash\nsshd:x:100:65534::/run/sshd:/usr/sbin/nologin\n"
    )
    (own / "sshd_config").write_text(
        f"HostKey {folder}/key\nAuthorizedKeysFile {HOME}/.ssh/authorized_keys\nPermitRootLogin yes\n"
        "PasswordAuthentication no\nStrictModes no\nUsePAM no\nPrintMotd no\nPidFile none\n"
    )
    return Machine(host, own)


def _profile() -> str:
    """The environment in which this runs, which is installed already: the machines have no way to the Internet."""
    bin_folder = str(Path(sys.executable).parent)
    lines = [f"export PATH={bin_folder}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"]
    lines += ["export OMP_NUM_THREADS=1 RAY_USAGE_STATS_ENABLED=0"]
    if "PYTHONPATH" in os.environ:
        lines.append(f"export PYTHONPATH={shlex.quote(os.environ['PYTHONPATH'])}")
    return "\n".join(lines) + "\n"


def wait_for(condition, limit_s: float, what: str = "it") -> None:
    deadline = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < deadline, f"{what} did not happen within {limit_s:g} s"
        time.sleep(0.1)


def _call(*words: str) -> None:
    subprocess.run(words, check=True)

"""Slurm on this machine: a controller and two nodes, of this test's own, ended with it.

`python -m tests.clusters.slurms COMMAND...` runs a command of yours within such a cluster.
"""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from tests.servers import free_port

NODE_SECONDS = 15  # without a sign of life, and the controller gives a node up

NEEDED = ("munged", "slurmctld", "slurmd", "sbatch")
ADMINISTRATORS = os.pathsep.join((os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/sbin"))

CONFIGURATION = """\
ClusterName=issgd
SlurmctldHost=localhost(127.0.0.1)
SlurmctldPort={port}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={place}/munge/socket
StateSaveLocation={place}/state
SlurmctldPidFile={place}/controller.pid
SlurmctldLogFile={place}/controller.log
SlurmdPidFile={place}/%n.pid
SlurmdSpoolDir={place}/spool-%n
SlurmdLogFile={place}/%n.log
SlurmdParameters=config_overrides
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
ReturnToService=2
KillWait=5
SlurmdTimeout={timeout}
{nodes}
PartitionName=debug Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""
NODE = "NodeName={name} NodeHostname=localhost NodeAddr=127.0.0.1 Port={port} CPUs=8 RealMemory=4000 State=UNKNOWN"


def missing() -> str:
    """Why there can be no Slurm here; empty where there can."""
    lacking = [name for name in NEEDED if shutil.which(name, path=ADMINISTRATORS) is None]
    if lacking:
        return f"no {', '.join(lacking)} here; `make test-clusters` installs Slurm on Debian"
    return "" if os.geteuid() == 0 else "Slurm's daemons start jobs as other users: only root may run them"


@contextlib.contextmanager
def slurm(place: Path) -> Iterator[Path]:
    """The path of slurm.conf of a cluster that is up within the block.

    Args:
        place: An empty folder whose path is short enough for a socket's.
    """
    place.chmod(0o755)
    for name, mode in (("munge", 0o711), ("munge/keys", 0o700), ("state", 0o700)):
        (place / name).mkdir()
        (place / name).chmod(mode)
    key = place / "munge/keys/key"
    key.write_bytes(os.urandom(128))
    key.chmod(0o600)
    nodes = "\n".join(NODE.format(name=name, port=free_port()) for name in ("n1", "n2"))
    configuration = place / "slurm.conf"
    configuration.write_text(CONFIGURATION.format(place=place, port=free_port(), timeout=NODE_SECONDS, nodes=nodes))
    environment = {**os.environ, "SLURM_CONF": str(configuration), "PATH": ADMINISTRATORS}
    munge = [f"--{name}-file={place}/munge/keys/{name}" for name in ("key", "log", "seed", "pid")]
    daemons: list[subprocess.Popen[bytes]] = []
    with (place / "daemons.log").open("wb") as log:

        def start(*command: str) -> None:
            daemons.append(subprocess.Popen(command, env=environment, stdout=log, stderr=log, stdin=subprocess.DEVNULL))

        try:
            start("munged", "--foreground", f"--socket={place}/munge/socket", *munge)
            _until(lambda: (place / "munge/socket").exists())
            start("slurmctld", "-D")
            for name in ("n1", "n2"):
                start("slurmd", "-D", "-N", name)
            _until(lambda: _idle(environment) == 2)
            yield configuration
        finally:
            for daemon in reversed(daemons):
                daemon.terminate()
            for daemon in daemons:
                try:
                    daemon.wait(20)
                except subprocess.TimeoutExpired:
                    daemon.kill()
                    daemon.wait()


@contextlib.contextmanager
def killed(place: Path, name: str, configuration: Path) -> Iterator[None]:
    """Within, a node is down, with all that ran there; afterwards it is up again, for as long as its cluster."""
    doomed = [int((configuration.parent / f"{name}.pid").read_text())]
    for path in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            within = f"SLURMD_NODENAME={name}".encode() in (path / "environ").read_bytes().split(b"\0")
            if within and os.readlink(path / "cwd") == str(place):
                parent = (path / "stat").read_text().rpartition(")")[2].split()[1]
                doomed += [int(path.name), *([int(parent)] if b"slurmstepd" in _words(parent) else [])]
    for pid in doomed:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    yield
    environment = {**os.environ, "SLURM_CONF": str(configuration), "PATH": ADMINISTRATORS}
    subprocess.run(["slurmd", "-N", name], env=environment, check=True)


def end_node(name: str, configuration: Path) -> None:
    """Ends a node that was started again; its cluster ends the others."""
    with contextlib.suppress(OSError, ValueError):
        os.kill(int((configuration.parent / f"{name}.pid").read_text()), signal.SIGTERM)


def _words(pid: str) -> bytes:
    return Path("/proc", pid, "cmdline").read_bytes()


def _idle(environment: dict[str, str]) -> int:
    command = ["sinfo", "--noheader", "--states=idle", "--Format=nodes"]
    said = subprocess.run(command, env=environment, capture_output=True, text=True).stdout.split()
    return sum(map(int, said))


def _until(holds: Callable[[], bool], seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, "Slurm does not come up"
        time.sleep(0.2)


if __name__ == "__main__":
    if reason := missing():
        sys.exit(reason)
    with tempfile.TemporaryDirectory(prefix="issgd-slurm-", dir="/tmp") as folder, slurm(Path(folder)) as conf:
        sys.exit(subprocess.run(sys.argv[1:], env={**os.environ, "SLURM_CONF": str(conf)}, check=False).returncode)

"""Slurm's commands, by stand-ins that start a job's script here at once: all of a run's way but what Slurm decides."""

import stat
import sys
from pathlib import Path

COMMANDS = ("sbatch", "squeue", "scancel", "scontrol", "srun")

_PROGRAM = """\
#!{python} -ISs
import os, re, shlex, signal, subprocess, sys, time
from pathlib import Path

place = Path({place!r})
command, words = Path(sys.argv[0]).name, sys.argv[1:]

def start(job, raw, script, restarts):
    text = Path(script).read_text()
    asked = dict(shlex.split(line[8:])[0].partition("=")[::2] for line in text.splitlines() if line[:8] == "#SBATCH ")
    array, _, index = job.partition("_")
    within = {{"SLURM_ARRAY_JOB_ID": array, "SLURM_ARRAY_TASK_ID": index}} if index else {{}}
    environment = {{**os.environ, "SLURM_JOB_ID": raw, "SLURM_JOB_NODELIST": "n1", "SLURMD_NODENAME": "n1", **within}}
    with open(asked["--output"].replace("%j", raw).replace("%%", "%"), "ab") as log:
        process = subprocess.Popen(["bash", script], cwd=asked["--chdir"], env=environment, stdin=subprocess.DEVNULL,
                                   stdout=log, stderr=log, start_new_session=True)
    partial = place / (raw + ".partial")
    partial.write_text("\\n".join([job, str(process.pid), script, str(restarts)]))
    partial.rename(place / (raw + ".job"))

def jobs():
    for path in sorted(place.glob("*.job")):
        job, pid, script, restarts = path.read_text().split("\\n")
        try:
            alive = Path("/proc", pid, "stat").read_text().rpartition(")")[2].split()[0] != "Z"
        except OSError:
            alive = False
        yield path.stem, job, int(pid), script, int(restarts), alive

if command == "srun":
    while words[0].startswith("-"):
        del words[0]
    os.execvp(words[0], words)
elif command == "sbatch":
    script = words[-1]
    with (place / "calls").open("a") as calls:
        calls.write(script + "\\n")
    first = 1 + sum(1 for _ in place.glob("*.job"))
    array = re.search("#SBATCH --array=0-([0-9]+)", Path(script).read_text())
    names = [f"{{first}}_{{index}}" for index in range(int(array[1]) + 1)] if array else [str(first)]
    for number, name in enumerate(names):
        start(name, str(first + number), script, 0)
    print(first)
elif command == "squeue":
    for raw, job, pid, script, restarts, alive in jobs():
        if alive:
            print(job, "RUNNING", restarts, "None")
elif command == "scancel":
    number = signal.SIGUSR2 if "--signal=USR2" in words else signal.SIGTERM
    for raw, job, pid, script, restarts, alive in jobs():
        if alive and words[-1] in (job, raw):
            os.kill(pid, number)
elif words[0] == "requeue":
    (found,) = [job for job in jobs() if job[0] == words[1]]
    if not os.fork():  # the script that asks has to end before
        os.setsid()
        while next(job for job in jobs() if job[0] == words[1])[-1]:
            time.sleep(0.05)
        start(found[1], found[0], found[3], found[4] + 1)
elif words[:2] == ["show", "hostnames"]:
    print(words[2])
else:
    sys.exit(f"{{command}} {{words}}: not here")
"""


def stand_ins(place: Path) -> Path:
    """Makes the commands; the folder that PATH must begin with.

    Its file `calls` has a line for each script that was submitted, `<number>.job` what has become of it.
    """
    place.mkdir()
    for name in COMMANDS:
        program = place / name
        program.write_text(_PROGRAM.format(python=sys.executable, place=str(place)))
        program.chmod(program.stat().st_mode | stat.S_IXUSR)
    return place

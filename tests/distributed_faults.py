"""One process of a run is stopped, killed, or does what it should not: distributed_faults.py PROBE MPIRUN...
The run ends within seconds, with one message of ours that names the rank and its host; it never hangs."""
import signal, socket, subprocess, sys, time

probe, mpirun = sys.argv[1], sys.argv[2:]
host = socket.gethostname()
bad = 0


def run(*fault):
    begin = time.monotonic()
    try:
        r = subprocess.run([*mpirun, "3", probe, *fault], capture_output=True, text=True, timeout=60)
    except subprocess.TimeoutExpired:
        return None, "", 60
    return r.returncode, r.stdout + r.stderr, time.monotonic() - begin


def check(what, holds, text):
    global bad
    if not holds:
        bad += 1
        print(f"FAIL {what}:\n{text[:2000]}")


status, text, seconds = run()
check("a run without faults", status == 0 and "done" in text and "error" not in text, text)
for fault, rank, said in (
    ("stop", "0", f"rank 0 ({host}) does not answer"),
    ("stop", "2", f"rank 2 ({host}) does not answer"),
    ("kill", "1", "process rank 1 with PID"),  # mpirun's own words
    ("throw", "1", "error: model.safetensors: no space left"),
    ("exit", "2", f"rank 2 ({host}) has left the run"),
    ("together", "0", "no space left"),
    ("together", "2", f"rank 2 ({host}) cannot go on"),
):
    status, text, seconds = run(fault, rank)
    ours = [line for line in text.splitlines() if line.startswith("error: ")]
    most = {"kill": 0, "throw": 2, "exit": 1}.get(fault, 1)  # who throws speaks, and one for those left behind
    check(f"{fault} {rank} ends with a status", status not in (0, None), text)
    check(f"{fault} {rank} says what and who", said in text, text)
    check(f"{fault} {rank} says it once, not {len(ours)} times", len(ours) <= most, text)
    print(f"{fault} {rank}: {seconds:.1f} s, {ours[0] if ours else 'by mpirun'}")
# A signal to one process, or to mpirun, which passes it on: all save. mpirun gives them a second unless it is told otherwise.
status, text, seconds = run("term", "2")
check("SIGTERM to one process stops and saves all", all(f"saved by rank {r}" in text for r in range(3)) and status == 143, text)
with subprocess.Popen([mpirun[0], "--mca", "odls_base_sigkill_timeout", "4", *mpirun[1:], "3", probe, "none", "9", "100000"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as p:
    time.sleep(2)
    p.send_signal(signal.SIGTERM)
    text = p.communicate(timeout=60)[0]
check("SIGTERM to mpirun stops and saves all", all(f"saved by rank {r}" in text for r in range(3)) and p.returncode != 0, text)
sys.exit(bool(bad))

"""One process of a run is stopped, killed, or does what it should not: distributed_faults.py PROBE MPIRUN...
The run ends within seconds, with one message of ours that names the rank and its host; it never hangs."""
import socket, subprocess, sys, time

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
sys.exit(bool(bad))

"""train under mpirun, struck at random moments: distributed_train.py TRAIN DIGITS.npy SCRATCH COUNT MPIRUN...
A process of 4, 3 or 2 is killed, stopped or told to end, COUNT times; each ends the run in seconds, names itself and is gone on with by another number of processes, the
last time by --restarts. Weights, moments and averages are those of one process that nobody struck, bit by bit. A COUNT of each:20 is kill -9 of each rank of 4 at 20 random
moments. By hand: ... /tmp/strikes each:20 mpirun --oversubscribe -n"""
import json, os, pathlib, random, shlex, shutil, signal, struct, subprocess, sys, time

train, digits, scratch, count, *mpirun = sys.argv[1:]
scratch, each, count = pathlib.Path(scratch), count.startswith("each:"), int(count.removeprefix("each:"))
shutil.rmtree(scratch, ignore_errors=True)
scratch.mkdir(parents=True)
numbers = random.Random(1)
os.environ["OMPI_MCA_odls_base_sigkill_timeout"] = "2"  # a failure takes mpirun twice as long
OPTIONS = ["--data", digits, "--largest", "16", "--cache", str(scratch / "cache")] + (
    "--preset quickstart --encoder-channels 8 --decoder-channels 12,8,8 --norm-groups 4 --batch 64 --average-stds 0.05,0.1 --draws 256 --nodes 9 --stage-images 300 "
    "--snapshot-seeds 0-3 --frechet-images 16 --snapshot-steps 4 --snapshot 4 --hours 0 --save-minutes 0.005 --animation false"
).split()
bad = 0


def check(what, holds, text):
    global bad
    if not holds:
        bad += 1
        print(f"FAIL {what}:\n{text[-3000:]}")


def state(out):
    """Weights, moments, averages and counters; what the run was told aside."""
    data = (out / "model.safetensors").read_bytes()
    size = struct.unpack("<Q", data[:8])[0]
    header = json.loads(data[8 : 8 + size])
    header["__metadata__"].pop("run")
    return header, data[8 + size :]


def images_seen(out):
    return json.loads(state(out)[0]["__metadata__"]["training"])["images_seen"]


def started(out, processes, *options, launch=None):
    words = launch if launch is not None else [*mpirun, str(processes)] if processes > 1 else []
    ours = ["--out", str(out), "--threads", "1"] + (["--timeout", "3"] if processes > 1 else [])
    command = [*words, train, *ours, *(["--resume"] if out.exists() else OPTIONS), *options]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def process_of(out, rank):
    """The number of a rank's process in the system."""
    for p in pathlib.Path("/proc").glob("[0-9]*"):
        try:
            if f"OMPI_COMM_WORLD_RANK={rank}".encode() in (p / "environ").read_bytes().split(b"\0") and str(out).encode() in (p / "cmdline").read_bytes():
                return int(p.name)
        except OSError:
            pass


def strike(out, rank, number, seconds):
    """A signal to a rank, so long after it began; none where the run ended before."""
    begin = time.monotonic()
    while not (pid := process_of(out, rank)) and time.monotonic() - begin < 30:
        time.sleep(0.1)
    time.sleep(seconds)
    pid = process_of(out, rank)
    if pid:
        os.kill(pid, number)
    return rank if pid else None


struck, whole = scratch / "struck", scratch / "whole"
first = started(struck, 3, "--kimg", "1000000", "--steps", "2")
said = first.communicate(timeout=120)[0]
check("a run of three processes", first.returncode == 0, said)
kinds = {signal.SIGKILL: 0, signal.SIGTERM: 0, signal.SIGSTOP: 0}
if each:
    strikes = [(signal.SIGKILL, 4, rank) for _ in range(count) for rank in range(4)]
else:
    strikes = [(list(kinds)[i % 3], processes := (4, 2, 3)[(i + i // 3) % 3], numbers.randrange(processes)) for i in range(count)]
for i, (number, processes, rank) in enumerate(strikes):
    p = started(struck, processes, "--kimg", "1000000", "--steps", "0")
    rank = strike(struck, rank, number, numbers.uniform(0.1, 6.0 if each else 3.0))
    begin = time.monotonic()
    try:
        said = p.communicate(timeout=60)[0]
    except subprocess.TimeoutExpired:
        p.kill()
        said = "hangs"
    seconds = time.monotonic() - begin
    kinds[number] += rank is not None
    check(f"strike {i}: {number.name} to rank {rank} of {processes} ends the run", p.returncode != 0 and said != "hangs", said)
    if number == signal.SIGSTOP and rank is not None:
        check(f"strike {i}: it is named", f"rank {rank} (" in said, said)
    print(f"{number.name} to rank {rank} of {processes}: {seconds:.1f} s, {images_seen(struck):.0f} images by then")
seen = images_seen(struck)
target = str(int(seen // 1000 + 1))
p = started(struck, 2, "--kimg", target, "--steps", "0", "--restarts", "2", "--mpirun", shlex.join([*mpirun[1:], "2"]), launch=[])
rank = strike(struck, numbers.randrange(2), signal.SIGKILL, 1)
said = p.communicate(timeout=300)[0]
print(f"SIGKILL to rank {rank} of 2, watched: {said.count('restart ')} restart")
check("a run that is watched goes on by itself", p.returncode == 0 and (rank is None or "restart 1 of 2" in said), said)
p = started(whole, 1, "--kimg", target)
said = p.communicate(timeout=300)[0]
check("a run of one process", p.returncode == 0, said)
same = state(struck) == state(whole)
check("bits", same, f"{state(struck)[0]['__metadata__']}\n{state(whole)[0]['__metadata__']}")
print(f"struck {({k.name: v for k, v in kinds.items()})} in {seen:.0f} images: {'the same bits as' if same else 'NOT the same as'} one process to {target} kimg that nobody struck")
sys.exit(bool(bad))

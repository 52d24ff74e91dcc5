"""Processes on two machines: network namespaces with addresses and host names of their own, each with a process that mpirun's agent for remote starts begins there;
the link between them is slow, then cut: distributed_hosts.py PROBE SCRATCH MPIRUN. Skipped (77) where the system lets nobody make namespaces."""
import os, pathlib, shutil, subprocess, sys, time

probe, scratch, mpirun = os.path.abspath(sys.argv[1]), pathlib.Path(sys.argv[2]).resolve(), sys.argv[3]
if os.geteuid() != 0 or not shutil.which("ip") or not shutil.which("tc") or not shutil.which("unshare"):
    print("skipped: needs root, ip, tc (iproute2) and unshare")
    sys.exit(77)
scratch.mkdir(parents=True, exist_ok=True)
tag = f"ms{os.getpid() % 10000}"
network = f"10.{200 + os.getpid() % 50}.{os.getpid() % 250}"
names = [f"{tag}a", f"{tag}b"]
hosts = {f"{network}.{2 + i}": name for i, name in enumerate(names)}
bad = 0


def sh(*words, quiet=False):
    r = subprocess.run(words, capture_output=True, text=True)
    if r.returncode and not quiet:
        raise OSError(f"{' '.join(words)}: {r.stderr.strip()}")


def check(what, holds, text):
    global bad
    if not holds:
        bad += 1
        print(f"FAIL {what}:\n{text[:3000]}")


def make():
    """A bridge here with an end of each namespace's link."""
    sh("ip", "link", "add", tag, "type", "bridge")
    sh("ip", "addr", "add", f"{network}.1/24", "dev", tag)
    sh("ip", "link", "set", tag, "up")
    for address, name in hosts.items():
        sh("ip", "netns", "add", name)
        sh("ip", "link", "add", f"{name}o", "type", "veth", "peer", "name", "eth0", "netns", name)
        sh("ip", "link", "set", f"{name}o", "master", tag, "up")
        sh("ip", "-n", name, "addr", "add", f"{address}/24", "dev", "eth0")
        sh("ip", "-n", name, "link", "set", "eth0", "up")
        sh("ip", "-n", name, "link", "set", "lo", "up")


def remove():
    for name in names:
        for pid in subprocess.run(["ip", "netns", "pids", name], capture_output=True, text=True).stdout.split():  # what was cut off
            subprocess.run(["kill", "-9", pid])
        sh("ip", "netns", "del", name, quiet=True)
        sh("ip", "link", "del", f"{name}o", quiet=True)
    sh("ip", "link", "del", tag, quiet=True)


agent = scratch / "agent.sh"
cases = "".join(f'{address}) name={name};;\n' for address, name in hosts.items())
agent.write_text(f'#!/bin/sh\nhost=$1; shift\ncase $host in\n{cases}*) echo "no host $host" >&2; exit 1;;\nesac\n'
                 'exec ip netns exec "$name" unshare --uts sh -c "hostname $name; $*"\n')
agent.chmod(0o755)
# Without keepalives mpirun waits for the agent behind a cut link as long as TCP does, though both processes have ended by then.
command = [mpirun, "--mca", "plm_rsh_agent", str(agent), "--mca", "btl", "tcp,self", "--mca", "pml", "ob1", "--mca", "btl_tcp_if_include", f"{network}.0/24",
           "--mca", "oob_tcp_if_include", f"{network}.0/24", "--mca", "oob_tcp_keepalive_time", "1", "--mca", "oob_tcp_keepalive_intvl", "1", "--mca", "oob_tcp_keepalive_probes", "1", "--host", ",".join(hosts), "-n", "2", probe]


def run(steps, meanwhile=None):
    """Status (none: it hung), what was said, seconds."""
    begin = time.monotonic()
    with open(scratch / "said", "w+") as said:
        p = subprocess.Popen([*command, "none", "9", str(steps)], stdout=said, stderr=subprocess.STDOUT, cwd=scratch)
        try:
            if meanwhile:
                time.sleep(2)
                meanwhile()
            status = p.wait(timeout=60)
        except subprocess.TimeoutExpired:
            p.kill()
            p.wait()
            status = None
        said.seek(0)
        return status, said.read(), time.monotonic() - begin


try:
    make()
except OSError as e:
    remove()
    print("skipped: no namespaces here:", e)
    sys.exit(77)
try:
    status, text, seconds = run(100)
    check("two hosts", status == 0 and "done" in text and names[0] in text and names[1] in text, text)
    print(f"two hosts: {seconds:.1f} s")
    for slower in (("netem", "delay", "20ms"), ("tbf", "rate", "200kbit", "burst", "4kb", "latency", "50ms")):  # whichever the kernel has
        if subprocess.run(["tc", "qdisc", "add", "dev", f"{names[1]}o", "root", *slower], capture_output=True).returncode == 0:
            status, text, slow = run(100)
            check("a slow link", status == 0 and "done" in text, text)
            print(f"a link slowed by {slower[0]}: {slow:.1f} s")
            sh("tc", "qdisc", "del", "dev", f"{names[1]}o", "root")
            break
    else:
        print("no slow link: the kernel has neither netem nor tbf")
    status, text, seconds = run(100000, lambda: sh("ip", "link", "set", f"{names[1]}o", "down"))
    check("a link that is cut ends the run", status not in (0, None), text)
    check("and who is behind it is named", f"({names[1]}) does not answer" in text or list(hosts)[1] in text, text)  # by us, or by mpirun where it is first
    print(f"a link that is cut: {seconds:.1f} s")
finally:
    remove()
sys.exit(bool(bad))

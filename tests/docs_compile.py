"""README and docs taken at their word: docs_compile.py PROJECT COMPILER [BUILD] [--readme: of programs README's alone]
- every cpp block with a main compiles without a warning, links by README's own g++ line, and runs: in a folder without data it ends with status 0, or with
  status 2 and one line that says what is missing; then on small data, where one that trains is stopped by Ctrl-C after its first progress line;
- every command names programs, scripts, presets and targets that exist, and options that their --help knows (for programs: where BUILD has them);
- every link leads somewhere."""
import math, os, pathlib, re, shlex, signal, struct, subprocess, sys, tempfile

source, compiler = pathlib.Path(sys.argv[1]).resolve(), sys.argv[2]
readme_alone = sys.argv[-1] == "--readme"
build = pathlib.Path(sys.argv[3]).resolve() if len(sys.argv) > 3 + readme_alone else None
pages = [source / "README.md", *sorted((source / "docs").glob("*.md"))]
blocks = {page: re.findall(r"```(\w*)\n(.*?)```", page.read_text(), re.S) for page in pages}
bad = programs = commands = 0


def wrong(page, text):
    global bad
    bad += 1
    print(f"{page.name}: {text}")


# --- data as the programs ask for ---------------------------------------------------------------------------------------------------------


def picture(i, side):
    """A bright spot, its place and size by i."""
    x, y, r = 0.3 + 0.4 * (i * 37 % 101) / 101, 0.3 + 0.4 * (i * 53 % 97) / 97, 0.1 + 0.1 * (i % 5) / 5
    line = lambda c: [math.exp(-(((k + 0.5) / side - c) / r) ** 2) for k in range(side)]
    across, down = line(x), line(y)
    return [[int(255 * a * b) for a in across] for b in down]


def write_npy(path, count, side, channels):
    header = "{'descr': '|u1', 'fortran_order': False, 'shape': (%d, %d, %d, %d), }\n" % (count, side, side, channels)
    values = bytes(v for i in range(count) for row in picture(i, side) for v in row for _ in range(channels))
    path.write_bytes(b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header.encode() + values)


def write_idx(path, count, side):
    some = [bytes(v for row in picture(i, side) for v in row) for i in range(100)]
    path.write_bytes(struct.pack(">4i", 0x803, count, side, side) + b"".join(some[i % 100] for i in range(count)))


DATA = {"images.npy": lambda path: write_npy(path, 64, 32, 3), "train-images-idx3-ubyte": lambda path: write_idx(path, 5100, 28)}


# --- programs -----------------------------------------------------------------------------------------------------------------------------


def run(program, folder):
    """Runs it, with Ctrl-C at the first line of progress. Returns status and what it said on stderr."""
    said = []
    with subprocess.Popen([str(program)], cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ | {"OMP_WAIT_POLICY": "passive"}) as p:
        for line in p.stderr:
            said.append(line)
            if "images/s" in line and len([s for s in said if "images/s" in s]) == 1:
                p.send_signal(signal.SIGINT)
        out = p.stdout.read()
        status = p.wait(timeout=600)
    return status, "".join(said), out


def quicker(line, code):
    """What to add to a command: with multistage::compiled where BUILD has it, the library's umbrella read once for all who ask for it."""
    archive = build / "libmultistage_compiled.a" if build else None
    flags = ["-O1", *(["-DMULTISTAGE_COMPILED"] if archive and archive.exists() else [])]
    if "<multistage/multistage.hpp>" in code:
        header = read_once / "library.hpp"
        if not header.exists():
            header.write_text("#include <multistage/multistage.hpp>\n")
            words = shlex.split(re.sub(r"\$\(.*?\)", "", line))
            options = [w for w in words[1:] if w.startswith("-") and not re.match("-[loI]", w)]
            command = [compiler, *options, *flags, f"-I{source / 'include'}", "-isystem", "/usr/include/eigen3", "-x", "c++-header", str(header)]
            subprocess.run(command, check=True)  # beside it, where the compiler looks
        flags += ["-include", str(header)]
    return " " + " ".join([*flags, *([str(archive)] if archive and archive.exists() else [])])


def check_program(page, code, command):
    with tempfile.TemporaryDirectory() as d:
        folder = pathlib.Path(d)
        (folder / "include").symlink_to(source / "include")
        (folder / "program.cpp").write_text(code)
        line = re.sub(r"^g\+\+", lambda m: shlex.quote(compiler) + " -Wall -Wextra", command)
        if page.name != "README.md":  # README's program as README says; the others in less time
            line += quicker(line, code)
        r = subprocess.run(["bash", "-c", line], cwd=folder, capture_output=True, text=True)
        if r.returncode or re.search(r"^(include/multistage|program\.cpp)[^\n]*warning", r.stderr, re.M):  # ours; Eigen's are Eigen's
            return wrong(page, f"`{line}`:\n{r.stderr[:3000]}")
        needs = [name for name in DATA if f'"{name}"' in code]
        status, said, out = run(folder / "program", folder)
        errors = [l for l in said.splitlines() if l.startswith("error: ")]
        if needs and not (status == 2 and len(errors) == 1 and needs[0] in errors[0] and "terminate" not in said):
            return wrong(page, f"its program without {needs[0]}: status {status}\n{said}")
        if not needs and status != 0:
            return wrong(page, f"its program: status {status}\n{said}{out}")
        before = set(folder.iterdir())
        for name in needs:
            DATA[name](folder / name)
        if needs:
            status, said, out = run(folder / "program", folder)
            if status != 0 or "images/s" not in said:
                return wrong(page, f"its program on small data: status {status}\n{said}{out}")
        made = sorted(f.name for f in set(folder.iterdir()) - before - {folder / n for n in needs})
        for name in re.findall(r'save\("([^"]+)"', code):
            if name not in made:
                wrong(page, f"its program made no {name}")
        print(f"{page.name}: program runs, status {status}{', makes ' + ', '.join(made) if made else ''}{': ' + out.strip() if out.strip() else ''}")


gxx = [line for kind, text in blocks[pages[0]] if kind != "cpp" for line in text.splitlines() if line.startswith("g++ ")]
if len(gxx) != 1:
    sys.exit(f"README.md has {len(gxx)} g++ lines; one is expected")
scratch = tempfile.TemporaryDirectory()
read_once = pathlib.Path(scratch.name)
for page in pages:
    for kind, text in blocks[page]:
        if kind == "cpp" and "int main" in text and (page == pages[0] or not readme_alone):
            programs += 1
            check_program(page, text, gxx[0])


# --- commands -----------------------------------------------------------------------------------------------------------------------------

presets = re.findall(r'"name": "(\w+)"', (source / "CMakePresets.json").read_text())
lists = "".join(f.read_text() for f in [source / "CMakeLists.txt", *source.glob("*/CMakeLists.txt")])
helps = {}


def help_of(path):
    """What a program or script says of its options; none where that cannot be asked here."""
    if path not in helps:
        helps[path] = None
        if path.startswith("build/") and build and (program := build.joinpath(*pathlib.Path(path).parts[2:])).exists():
            r = subprocess.run([str(program), "--help"], capture_output=True, text=True)
            helps[path] = r.stdout + r.stderr
        elif not path.startswith("build/"):
            helps[path] = (source / path).read_text()
    return helps[path]


def exists(path):
    parts = pathlib.Path(path).parts
    if parts[0] == "build":  # of a preset: a program, as its source tells, or the folder
        names = [parts[-1], parts[-1].removeprefix("bench_")]
        return parts[1] in presets and (len(parts) == 2 or any((source / parts[-2] / f"{n}{end}").exists() for n in names for end in (".cpp", ".cu")))
    return any((source / f"{path}{end}").exists() for end in ("", ".cpp", ".hpp"))


def check_command(page, line):
    global commands
    words = [w for w in re.split(r"[\s\[\]]+", line) if w]
    if words[0] in ("bash", "python3"):
        words = words[1:]
    if words[0] == "cmake":
        commands += 1
        for key, known in (("--preset", presets), ("--target", re.findall(r"add_(?:custom_target|executable)\((\w+)", lists))):
            if key in words and words[words.index(key) + 1] not in known:
                wrong(page, f"`{line}`: {key} {words[words.index(key) + 1]} does not exist")
        return
    if not re.match(r"(build|examples|tests|bench|docs|include)/", words[0]):
        return
    commands += 1
    if not exists(words[0]):
        return wrong(page, f"`{line}`: {words[0]} does not exist")
    for option in re.findall(r"(?<![\w-])--[a-z][\w-]*", line):
        text = help_of(words[0])
        if option != "--help" and text is not None and not re.search(re.escape(option) + r"(?![\w-])", text):
            wrong(page, f"`{line}`: {words[0]} has no option {option}")


for page in pages:
    for kind, text in blocks[page]:
        if kind != "cpp":
            for line in re.sub(r"\n {8,}", " ", text).splitlines():
                if re.match(r"(bash|python3|cmake|build/|examples/|tests/|bench/)", line):
                    check_command(page, line)
    prose = re.sub(r"```.*?```", "", page.read_text(), flags=re.S)
    for line in re.findall(r"`([^`\n]+)`", prose):
        if re.match(r"(bash |python3 |cmake |build/|examples/|tests/|bench/|docs/|include/multistage)", line):
            check_command(page, line)
    for link in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", prose):
        if not link.startswith("http") and not (page.parent / link).exists():
            wrong(page, f"its link to {link} leads nowhere")

print(f"{programs} programs, {commands} commands, {bad} wrong")
sys.exit(bool(bad) or programs == 0 or commands == 0)

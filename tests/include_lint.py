"""The rooms and their arrows: which folder of include/multistage may include which, and how long headers may be."""
import pathlib, re, statistics, sys

# room -> rooms it may include, itself aside
ARROWS = {
    "core": [],
    "tensor": ["core"],
    "interop": ["core"],
    "schedule": ["core"],
    "data": ["core", "distributed"],
    "distributed": ["core"],
    "backend": ["core"],
    "backend/cpu": ["core", "backend"],
    "backend/eigen": ["core", "backend"],
    "backend/thrust": ["core", "backend"],
    "backend/cuda": ["core", "backend", "backend/thrust"],
    "ops": ["core", "backend", "tensor"],
    "graph": ["core", "ops", "backend"],
    "stages": ["core", "schedule", "data", "ops", "distributed"],
    "networks": ["core", "ops", "graph"],
    "diffusion": ["core", "schedule", "data", "stages", "ops", "graph", "networks"],
    "samplers": ["core", "ops", "schedule", "stages", "diffusion", "distributed"],
    "training": ["core", "distributed", "schedule", "data", "stages", "ops", "graph", "networks", "diffusion", "metrics", "io"],
    "metrics": ["core", "data", "distributed", "ops", "graph"],
    "io": ["core", "data", "graph", "networks", "stages", "diffusion", "metrics"],
    "runs": ["core", "distributed", "schedule", "data", "stages", "networks", "diffusion", "samplers", "training", "metrics", "io"],
    "evidence": ["core", "distributed", "schedule", "data", "stages", "networks", "graph", "diffusion", "samplers", "training", "metrics", "io", "runs"],
}
UMBRELLAS = {"tensor.hpp", "operations.hpp", "multistage.hpp", "eigen.hpp", "thrust.hpp", "cuda.hpp", "io.hpp", "library.hpp", "runs.hpp", "evidence.hpp"}

root = pathlib.Path(sys.argv[1]) / "include" / "multistage"
problems, lengths = [], []
for path in sorted(root.rglob("*.hpp")):
    name = path.relative_to(root).as_posix()
    text = path.read_text()
    lines = text.count("\n")
    lengths.append(lines)
    if lines > 500:
        problems.append(f"{name}: {lines} lines; a header has at most 500")
    if not text.startswith("//"):
        problems.append(f"{name}: does not open with a comment on what it is for")
    if "#pragma once" not in text:
        problems.append(f"{name}: lacks #pragma once")
    if name in UMBRELLAS:
        continue
    room = path.parent.relative_to(root).as_posix()
    for target in re.findall(r'#include "([^" ]+)"', text):  # those with spaces are config.hpp's words to compilers that cannot go on
        other = (path.parent / target).resolve()
        if not other.exists():
            problems.append(f"{name}: includes {target}, which does not exist")
            continue
        to = other.parent.relative_to(root.resolve()).as_posix()
        if to == room:
            continue
        if to not in ARROWS[room]:
            problems.append(f"{name}: {room} may not include {to} ({target})")
        if to == "io" and room == "training" and not name.startswith("training/checkpoint"):
            problems.append(f"{name}: only training/checkpoint*.hpp may look from training to io")
    for macro in re.findall(r"#define (\w+)", text):
        if not macro.startswith("MULTISTAGE_"):
            problems.append(f"{name}: macro {macro} lacks the prefix MULTISTAGE_")
    if room != "backend/thrust" and room != "backend/cuda" and "#include <thrust/" in text:
        problems.append(f"{name}: Thrust's headers stay in backend/thrust and backend/cuda")
if statistics.median(lengths) > 150:
    problems.append(f"the median header has {statistics.median(lengths)} lines; at most 150")
print("\n".join(problems) or f"{len(lengths)} headers, median {statistics.median(lengths):.0f} lines, longest {max(lengths)}")
sys.exit(bool(problems))

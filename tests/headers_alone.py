"""Every header compiles as a translation unit of its own (those for nvcc aside): headers_alone.py PROJECT [COMPILER [FLAGS]].
- Names of std, Eigen and nlohmann come from a header that it, or a header of ours that it includes, asks for: told by the text, which does not depend on what a
  standard library includes by chance;
- where a compiler is named: given these, which are read once for all, it compiles without a warning, included twice. A header that another one includes before anything else is
  compiled by itself there: only the others are asked."""
import concurrent.futures, functools, pathlib, re, subprocess, sys, tempfile

source, compiler, flags = pathlib.Path(sys.argv[1]), "".join(sys.argv[2:3]), [f for f in sys.argv[3:] if f]
root = (source / "include" / "multistage").resolve()
headers = [p for p in sorted(root.rglob("*.hpp")) if "backend/cuda" not in p.as_posix() and p.name != "cuda.hpp"]
bad = 0

# name (a pattern) -> headers that have it. Names that many headers have (size_t, move, swap, begin) and those of <cmath>'s kin that <cmath> has are told by any.
PROVIDERS = {
    r"size_t|ptrdiff_t": "cstddef cstdint cstdio cstdlib cstring string vector array span memory algorithm string_view utility map functional type_traits",
    r"byte": "cstddef",
    r"u?int(8|16|32|64)_t|uintptr_t": "cstdint",
    r"move|forward|as_const|exchange|swap|pair|(make_)?(integer|index)_sequence|in_place|declval": "utility algorithm memory vector string map tuple variant optional functional",
    r"vector": "vector",
    r"string|to_string|stoll|stoul|stoi|getline": "string",
    r"string_view|string_view_literals": "string_view string",
    r"span|as_bytes|as_writable_bytes|dynamic_extent": "span",
    r"array": "array",
    r"map": "map",
    r"set": "set",
    r"unordered_set": "unordered_set",
    r"forward_list": "forward_list",
    r"tuple|apply": "tuple",
    r"optional|nullopt": "optional",
    r"variant|variant_size_v|variant_alternative_t|visit|get_if|holds_alternative": "variant",
    r"function|ref|less": "functional",
    r"(shared|unique)_ptr|make_(shared|unique)|addressof": "memory",
    r"min|max|clamp|copy|copy_n|copy_if|fill|fill_n|sort|stable_sort|find|find_if|find_if_not|transform|equal|all_of|count|rotate|nth_element|(min|max|minmax)_element"
    r"|(upper|lower)_bound|binary_search|is_sorted|lexicographical_compare": "algorithm",
    r"accumulate|iota|exclusive_scan": "numeric",
    r"sqrt|log|log10|log1p|exp|exp2|expm1|pow|sin|cos|tan|atan|atan2|tanh|floor|ceil|round|lround|nearbyint|fabs|fmod|fma|erfc?|lgamma|isfinite|isinf|isnan|nextafter": "cmath",
    r"numeric_limits": "limits",
    r"numbers": "numbers",
    r"bit_cast|bit_ceil": "bit",
    r"memcpy|memcmp|memset|strerror": "cstring",
    r"[fs]?n?printf|sscanf|fflush|fputc|fread|fopen|fclose|ferror": "cstdio",
    r"getenv|strtod": "cstdlib",
    r"longjmp|jmp_buf": "csetjmp",
    r"fe[sg]etround": "cfenv",
    r"tolower|isspace": "cctype",
    r"tm|time_t|time|strftime": "ctime",
    r"from_chars(_result)?": "charconv",
    r"(convertible|same|derived)(_to|_as|_from)|integral|copyable|invocable": "concepts",
    r"is_\w+_v|conditional_t|remove_\w+_t|type_identity(_t)?|common_type_t|(true|false)_type|bool_constant": "type_traits concepts",
    r"atomic|memory_order_\w+": "atomic",
    r"mutex|lock_guard|unique_lock": "mutex",
    r"thread|this_thread": "thread",
    r"future|async|launch": "future",
    r"chrono": "chrono",
    r"filesystem": "filesystem",
    r"error_code|system_error|errc": "system_error filesystem charconv",
    r"exception|exception_ptr|current_exception|rethrow_exception": "exception",
    r"runtime_error": "stdexcept",
    r"bad_alloc|align_val_t|nothrow": "new",
    r"[io]?stringstream": "sstream",
    r"[io]?fstream": "fstream",
    r"ostream": "ostream iosfwd sstream iostream",
    r"cout": "iostream",
    r"random_device": "random",
    r"initializer_list": "initializer_list vector string",
    r"back_inserter": "iterator",
    r"mdspan|extents|layout_stride": "mdspan",
}
PROVIDERS = [(re.compile(rf"(?:{names})"), set(providers.split())) for names, providers in PROVIDERS.items()]
OTHERS = [(re.compile(r"\bEigen::"), "Eigen/"), (re.compile(r"\bnlohmann::"), "nlohmann/")]


@functools.cache
def asked_for(path):
    """The headers of others that a header, and what it includes of ours, asks for."""
    found = set()
    for ours, others in re.findall(r'#include (?:"([^" ]+)"|<([^>]+)>)', path.read_text()):
        if others:
            found.add(others)
        elif (path.parent / ours).exists():
            found |= asked_for((path.parent / ours).resolve())
    return found


def wrong(header, text):
    global bad
    bad += 1
    print(f"{header.relative_to(root)}: {text}")


for header in headers:
    text = re.sub(r'//[^\n]*|"(?:[^"\\\n]|\\.)*"', "", re.sub(r"#[^\n]*", "", header.read_text()))
    for name in sorted(set(re.findall(r"\bstd::(\w+)", text))):
        for names, providers in PROVIDERS:
            if names.fullmatch(name) and not providers & asked_for(header):
                wrong(header, f"std::{name} needs <{sorted(providers)[0]}>" if len(providers) == 1 else f"std::{name} needs one of {sorted(providers)}")
    for names, folder in OTHERS:
        if names.search(text) and not any(folder in h for h in asked_for(header)):
            wrong(header, f"{folder[:-1]} is used and not included")


if not compiler:
    print(f"{len(headers)} headers, {bad} names that are not asked for")
    sys.exit(bool(bad))


def flags_of(package):
    return subprocess.run(["pkg-config", "--cflags", package], capture_output=True, text=True).stdout.split()


mpi = flags_of("ompi-cxx")
if not mpi:
    headers = [p for p in headers if p.name != "mpi.hpp"]
cuda = pathlib.Path("/usr/local/cuda/include")
if (cuda / "nccl.h").exists():
    mpi += ["-isystem", str(cuda)]
else:
    headers = [p for p in headers if p.name != "nccl.hpp"]
extra = [*mpi, "-DOMPI_SKIP_MPICXX", "-isystem", "/usr/include/eigen3", *(f for package in ("eigen3", "cairo", "libpng") for f in flags_of(package)),
         "-DMULTISTAGE_JPEG", "-DMULTISTAGE_WEBP", "-DMULTISTAGE_LCMS", "-DMULTISTAGE_ARCHIVE", "-DTHRUST_DEVICE_SYSTEM=THRUST_DEVICE_SYSTEM_CPP", f"-I{source / 'include'}"]
command = [compiler, "-std=c++20", "-Wall", "-Wextra", "-Wno-missing-braces", *flags, *extra]


def begins_with(header):
    """The header of ours that one includes, always, before anything of its own; or none."""
    first = re.search(r'#include "([^" ]+\.hpp)"', text := header.read_text())
    return (header.parent / first[1]).resolve() if first and "#if" not in text[: first.start()] else None


def check(header, base):
    include = f"#include <multistage/{header.relative_to(root).as_posix()}>\n"
    r = subprocess.run([*command, "-fsyntax-only", *base, "-x", "c++", "-"], input=2 * include, capture_output=True, text=True)
    return header, r.returncode, r.stderr


with tempfile.TemporaryDirectory() as folder, concurrent.futures.ThreadPoolExecutor(2) as pool:
    standard = sorted({h for header in headers for h in asked_for(header) if re.fullmatch("[a-z_]+", h) and h not in ("mdspan", "version")})
    base = pathlib.Path(folder) / "base.hpp"
    base.write_text("".join(f"#include <{h}>\n" for h in [*standard, "Eigen/Core", "nlohmann/json.hpp"]))
    made = base.with_suffix(".hpp.pch" if "clang" in compiler else ".hpp.gch")
    subprocess.run([*command, "-x", "c++-header", str(base), "-o", str(made)], check=True)
    begin = ["-include-pch", str(made)] if "clang" in compiler else ["-include", str(base)]
    first = {begins_with(header) for header in headers}
    asked = [header for header in headers if header not in first]
    for header, code, text in pool.map(lambda h: check(h, begin), asked):
        if code or "warning" in text:
            wrong(header, f"\n{text[:3000]}")
print(f"{len(headers)} headers by {len(asked)} units, {bad} errors or warnings")
sys.exit(bool(bad))

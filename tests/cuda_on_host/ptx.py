"""Reads PTX: variables, functions and their parameters; bodies stay text."""

import re

SIZES = {"pred": 1, "b8": 1, "u8": 1, "s8": 1}
SIZES |= {t: 2 for t in ("b16", "u16", "s16", "f16", "bf16")}
SIZES |= {t: 4 for t in ("b32", "u32", "s32", "f32", "f16x2", "bf16x2", "tf32")}
SIZES |= {t: 8 for t in ("b64", "u64", "s64", "f64")}

LINKAGE = r"(?:\.visible |\.weak |\.extern |\.common )*"
VARIABLE = re.compile(
    LINKAGE + r"\.(global|const|shared)\s+(?:\.align\s+(\d+)\s+)?\.(\w+)\s+([\w$]+)"
    r"((?:\[\d*\])*)\s*(?:=\s*(.*))?;"
)
PARAMETER = re.compile(
    r"\.param\s+(?:\.align\s+(\d+)\s+)?\.(\w+)\s+"
    r"(?:\.ptr\s+(?:\.\w+\s+)*(?:\.align\s+\d+\s+)?)?([\w$]+)(?:\[(\d+)\])?"
)
# what makes threads of a block share memory or wait for each other
MEETS = re.compile(
    r"\b(bar|barrier|shfl|vote|match|redux|mma|ldmatrix|activemask)\.|cp\.async|\.shared|shared::"
)


def without_comment(line):
    return re.sub(r"//.*", "", line).strip()


def parse_parameters(text):
    """[(name, offset, size)] and how many bytes they take together."""
    found = []
    offset = 0
    for alignment, kind, name, count in PARAMETER.findall(text):
        size = SIZES[kind] * int(count or 1)
        alignment = int(alignment or SIZES[kind])
        offset = (offset + alignment - 1) // alignment * alignment
        found.append((name, offset, size))
        offset += size
    return found, offset


def initial_bytes(text, kind, size):
    data = b""
    for value in text.strip().strip("{}").split(","):
        value = value.strip()
        if value.startswith(("0f", "0d")):
            number = int(value[2:], 16)
        else:
            number = int(value, 0) & ((1 << 8 * SIZES[kind]) - 1)
        data += number.to_bytes(SIZES[kind], "little")
    return data.ljust(size, b"\0")


class Variable:
    """A global, constant or shared variable."""

    def __init__(self, statement):
        match = VARIABLE.match(statement)
        if not match:
            raise ValueError("a variable that is not understood: " + statement[:120])
        self.space, alignment, kind, self.name, dimensions, initial = match.groups()
        self.dynamic = ".extern" in statement and self.space == "shared"
        count = 1
        for d in re.findall(r"\[(\d*)\]", dimensions):
            count *= int(d or 1)
        self.size = 0 if self.dynamic else count * SIZES[kind]
        self.alignment = int(alignment or SIZES[kind])
        self.data = initial_bytes(initial, kind, self.size) if initial else None


class Function:
    """An entry (a kernel) or a function; `body` is [(line, text)]."""

    def __init__(self, kind, head, body, line):
        self.kind, self.body, self.line = kind, body, line
        bounds = re.search(r"\.(?:maxntid|reqntid)\s+(\d+)(?:,\s*(\d+))?(?:,\s*(\d+))?", head)
        self.most_threads = [int(x or 1) for x in bounds.groups()] if bounds else [1024, 1, 1]
        head = re.sub(r"\.(maxntid|minnctapersm|reqntid|maxnreg|noreturn)[^.(){]*", "", head)
        head = re.sub(r"^\s*" + LINKAGE + r"\.(entry|func)\s*", "", head).strip()
        self.results = []
        if kind == "func" and head.startswith("("):
            end = head.index(")")
            self.results, _ = parse_parameters(head[1:end])
            head = head[end + 1 :].strip()
        self.name, text = re.match(r"([\w$]+)\s*(?:\((.*)\))?", head, re.S).groups()
        self.parameters, self.parameter_bytes = parse_parameters(text or "")
        self.text = "\n".join(s for _, s in body)
        self.meets = bool(MEETS.search(self.text))

    def own_shared(self):
        """Shared variables that the body declares."""
        statements = re.findall(r"^\s*\.shared[^;]*;", self.text, re.M)
        return [Variable(s.strip()) for s in statements]


class Module:
    """One PTX file."""

    def __init__(self, text):
        self.variables = {}
        self.shared = {}
        self.entries = []
        self.functions = []
        lines = text.split("\n")
        at = 0
        while at < len(lines):
            line = without_comment(lines[at])
            if re.match(LINKAGE + r"\.(global|const|shared)\b", line):
                at = self.read_variable(lines, at)
            elif match := re.match(LINKAGE + r"\.(entry|func)\b", line):
                at = self.read_function(lines, at, match.group(1))
            else:
                at += 1

    def read_variable(self, lines, at):
        statement = without_comment(lines[at])
        while ";" not in statement:
            at += 1
            statement += " " + without_comment(lines[at])
        variable = Variable(statement)
        (self.shared if variable.space == "shared" else self.variables)[variable.name] = variable
        return at + 1

    def read_function(self, lines, at, kind):
        start = at
        head = ""
        while not (line := without_comment(lines[at])).startswith("{"):
            head += " " + line
            at += 1
            if line.endswith(";"):
                return at  # a declaration
        body = []
        depth = 0
        while True:
            line = without_comment(lines[at])
            body.append((at + 1, line))
            at += 1
            if line.startswith("{") and "}" not in line:
                depth += 1
            elif line == "}" or line.startswith("} ") or line == "};":
                depth -= 1
            if depth == 0:
                break
        function = Function(kind, head, body[1:-1], start + 1)
        (self.entries if kind == "entry" else self.functions).append(function)
        return at

    def shared_layout(self, entry):
        """Offsets of the shared variables that `entry` uses, with gaps between them, and where
        dynamic shared memory starts: at no better alignment than was asked for."""
        gap = 256
        names = re.findall(r"[\w$]+", entry.text)
        used = [v for n, v in self.shared.items() if n in set(names)] + entry.own_shared()
        offsets = {}
        end = gap
        for v in used:
            if not v.dynamic:
                end = (end + v.alignment - 1) // v.alignment * v.alignment
                offsets[v.name] = (end, v.size)
                end += v.size + gap
        alignment = max([16] + [v.alignment for v in used if v.dynamic])
        dynamic = (end + 2 * alignment - 1) // (2 * alignment) * (2 * alignment) + alignment
        for v in used:
            if v.dynamic:
                offsets[v.name] = (dynamic, 0)
        return offsets, dynamic

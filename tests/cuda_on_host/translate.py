#!/usr/bin/env python3
"""PTX to C++: each entry becomes a function that runs one thread. translate.py IN.ptx OUT.cpp

What is not understood becomes a call that ends the kernel and says so; it is listed here too.
"""

import re
import sys

from ptx import SIZES, Module, parse_parameters

C_TYPES = {
    "pred": "bool", "b8": "uint8_t", "u8": "uint8_t", "s8": "int8_t",
    "b16": "uint16_t", "u16": "uint16_t", "s16": "int16_t", "f16": "uint16_t", "bf16": "uint16_t",
    "b32": "uint32_t", "u32": "uint32_t", "s32": "int32_t", "f32": "float",
    "f16x2": "uint32_t", "bf16x2": "uint32_t", "tf32": "uint32_t",
    "b64": "uint64_t", "u64": "uint64_t", "s64": "int64_t", "f64": "double",
}  # fmt: skip
SPECIAL = {f"%{r}.{d}": f"t.{r}[{i}]" for r in ("tid", "ntid", "ctaid", "nctaid")
           for i, d in enumerate("xyz")}  # fmt: skip
SPECIAL |= {
    "%laneid": "t.lane()",
    "%warpid": "t.warp()",
    "%lanemask_eq": "(1u << t.lane())",
    "%lanemask_lt": "((1u << t.lane()) - 1)",
    "%lanemask_le": "((2u << t.lane()) - 1)",
    "%lanemask_gt": "~((2u << t.lane()) - 1)",
    "%lanemask_ge": "~((1u << t.lane()) - 1)",
    "%dynamic_smem_size": "t.dynamic_shared",
    "%clock": "0",
    "%clock64": "0",
    "%smid": "0",
}
SPACES = {"global": "global_space", "const": "global_space", "local": "local_space",
          "shared": "shared_space", "shared::cta": "shared_space"}  # fmt: skip
# Instructions without an effect that a program could see.
NOTHING = {"pragma", "membar", "fence", "prefetch", "prefetchu", "discard", "applypriority",
           "nanosleep", "griddepcontrol", "brkpt"}  # fmt: skip


class Unsupported(Exception):
    pass


def identifier(s):
    return re.sub(r"[^A-Za-z0-9_]", "_", s)


def register_type(kind):
    return "bool" if kind == "pred" else f"uint{8 * SIZES[kind]}_t"


def split(operands):
    """At the commas outside brackets."""
    parts = [""]
    depth = 0
    for c in operands:
        depth += (c in "{[(") - (c in "}])")
        if c == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += c
    return [p.strip() for p in parts if p.strip()]


def registers(operand):
    return split(operand.strip("{} ")) if operand.startswith("{") else [operand]


def space_of(modifiers):
    return next((SPACES[m] for m in modifiers if m in SPACES), "generic_space")


class Emitter:
    """Writes one function. A method `op_NAME` translates the instruction NAME; its arguments are
    the modifiers, the last of which is mostly the type, the operands, and the line."""

    def __init__(self, module, function, index):
        self.module, self.function, self.index = module, function, index
        self.scopes = [{}]  # register -> type
        self.call_scopes = [set()]  # .param variables of call sequences
        self.arrays = set()  # of local memory
        self.shared, self.shared_end = module.shared_layout(function)
        self.hoisted = []
        self.out = []
        self.unsupported = []

    # --- operands

    def register(self, name):
        return next((s[name] for s in reversed(self.scopes) if name in s), None)

    def symbol(self, name):
        """The address of a name, in the space where it lies."""
        f = self.function
        for parameter, offset, _ in f.parameters:
            if parameter == name:
                if f.kind == "entry":
                    return f"(uint64_t)(P + {offset})"
                return f"(uint64_t)p_{identifier(name)}"
        if any(name in s for s in self.call_scopes):
            return f"(uint64_t)q_{identifier(name)}"
        if name in self.arrays:
            return f"L_{identifier(name)}"
        if name in self.shared:
            if f.kind == "func":
                raise Unsupported("shared memory in a function that is not inlined")
            return f"uint64_t({self.shared[name][0]})"
        if name in self.module.variables:
            return f"G[{list(self.module.variables).index(name)}]"
        if any(name == result for result, *_ in f.results):
            return "(uint64_t)ret"
        raise Unsupported("symbol " + name)

    def value(self, token, kind):
        """An operand as a C++ expression of type C_TYPES[kind]."""
        c_type = C_TYPES[kind]
        token = token.strip()
        if token.startswith("!"):
            return f"(!{self.value(token[1:], kind)})"
        if token in SPECIAL:
            return f"({c_type}){SPECIAL[token]}"
        if self.register(token) is not None:
            return f"rd<{c_type}>(v_{identifier(token)})"
        if re.match(r"^0[fF][0-9a-fA-F]{8}$", token):
            return f"bits<{c_type}>(uint32_t(0x{token[2:]}u))"
        if re.match(r"^0[dD][0-9a-fA-F]{16}$", token):
            return f"bits<{c_type}>(uint64_t(0x{token[2:]}ull))"
        if re.match(r"^-?(0x[0-9a-fA-F]+|\d+)U?$", token):
            number = int(token.rstrip("U"), 0)
            if kind == "pred":
                return "true" if number else "false"
            return f"({c_type})({number & 0xFFFFFFFFFFFFFFFF}ull)"
        if token.startswith("%"):
            raise Unsupported("register " + token)
        return f"({c_type}){self.symbol(token)}"

    def address(self, token):
        """[base + offset] as an expression, and whether the base is a name."""
        match = re.match(r"^\[\s*([\w$%.]+)\s*(?:\+\s*(-?\w+))?\s*\]$", token.strip())
        if not match:
            raise Unsupported("address " + token)
        name, offset = match.group(1), int(match.group(2) or "0", 0)
        kind = self.register(name)
        if kind is None:
            base = self.symbol(name) if not re.match(r"^\d", name) else f"uint64_t({name})"
        else:
            base = f"uint64_t(rd<{register_type(kind)}>(v_{identifier(name)}))"
        sign = "+" if offset >= 0 else "-"
        return f"({base} {sign} {abs(offset)})", kind is None

    def assign(self, register, expression):
        if register == "_":
            return f"(void)({expression});"
        if self.register(register) is None:
            raise Unsupported("destination " + register)
        return f"wr(v_{identifier(register)}, {expression});"

    def real(self, modifiers, compute, *tokens):
        """An expression over reals of the last modifier's type, with .ftz and .sat."""
        kind = modifiers[-1]
        if any(m in modifiers for m in ("rm", "rz", "rp")):
            raise Unsupported("rounding")
        if kind not in ("f32", "f64"):
            raise Unsupported(kind)
        ftz = "ftz" in modifiers
        values = [self.value(x, kind) for x in tokens]
        result = compute(*[f"flush({v})" if ftz else v for v in values])
        if ftz:
            result = f"flush({result})"
        return f"saturate({result})" if "sat" in modifiers else result

    # --- control

    def op_ret(self, m, o, line):
        return "return;"

    op_exit = op_ret

    def op_trap(self, m, o, line):
        return f"t.trap({line});"

    def op_bra(self, m, o, line):
        return f"goto {self.label(o[0])};"

    def op_call(self, m, o, line):
        match = re.match(
            r"^(?:\(\s*([\w$]+)\s*\)\s*,\s*)?([\w$]+)\s*(?:,\s*\(([^)]*)\))?", ", ".join(o)
        )
        result, name, given = match.groups()
        if name == "__assertfail":
            return f"t.trap({line});"
        if name == "vprintf":
            return ""
        if not any(f.name == name for f in self.module.functions):
            raise Unsupported("call of " + name)
        result = "(char*)q_" + identifier(result) if result else "nullptr"
        arguments = "".join(
            f", (const char*)q_{identifier(x.strip())}"
            for x in (given or "").split(",")
            if x.strip()
        )
        return f"fn_{identifier(name)}(t, {result}{arguments});"

    # --- memory

    def op_ld(self, m, o, line):
        kind = m[-1]
        c_type, size = C_TYPES[kind], SIZES[kind]
        names = registers(o[0])
        address, named = self.address(o[1])
        if "param" in m:
            check = (
                "" if named else f"t.check_parameter(P, PSIZE, a_, {len(names) * size}, {line}); "
            )
            reads = [self.assign(r, f"ldp<{c_type}>(a_ + {i * size})") for i, r in enumerate(names)]
            return f"{{ const uint64_t a_ = {address}; {check}{' '.join(reads)} }}"
        where = f"t.load<{space_of(m)}, {size}, {len(names)}>({address}, {line})"
        if "nc" in m:
            where = f"t.load_constant<{size}, {len(names)}>({address}, {line})"
        reads = [self.assign(r, f"ldh<{c_type}>(h_ + {i * size})") for i, r in enumerate(names)]
        return f"{{ const char* h_ = {where}; {' '.join(reads)} }}"

    op_ldu = op_ld

    def op_st(self, m, o, line):
        kind = m[-1]
        c_type, size = C_TYPES[kind], SIZES[kind]
        address, _ = self.address(o[0])
        values = [self.value(x, kind) for x in registers(o[1])]
        if "param" in m:
            where = f"(char*){address}"
        else:
            where = f"t.store<{space_of(m)}, {size}, {len(values)}>({address}, {line})"
        writes = [f"sth<{c_type}>(h_ + {i * size}, {v});" for i, v in enumerate(values)]
        return f"{{ char* h_ = {where}; {' '.join(writes)} }}"

    def atomic(self, m, operation, kind, address, values, line):
        known = ("add", "min", "max", "and", "or", "xor", "exch", "inc", "dec")
        place = f"t, {line}, {self.address(address)[0]}"
        arguments = ", ".join(self.value(v, kind) for v in values)
        space, c_type = space_of(m), C_TYPES[kind]
        if operation == "cas":
            return f"atomic_cas<{space}, {c_type}>({place}, {arguments})"
        if operation not in known or kind not in (
            "u32",
            "s32",
            "b32",
            "u64",
            "s64",
            "b64",
            "f32",
            "f64",
        ):
            raise Unsupported(operation)
        suffix = "_" if operation in ("and", "or", "xor") else ""
        return f"atomic<{space}, reduction::{operation}{suffix}, {c_type}>({place}, {arguments})"

    def op_atom(self, m, o, line):
        return self.assign(o[0], self.atomic(m, m[-2], m[-1], o[1], o[2:], line))

    def op_red(self, m, o, line):
        return f"(void){self.atomic(m, m[-2], m[-1], o[0], o[1:], line)};"

    def op_cvta(self, m, o, line):
        value = self.value(o[1], "u64")
        if "shared" in m:
            value += " - shared_base" if "to" in m else " + shared_base"
        return self.assign(o[0], value)

    def op_isspacep(self, m, o, line):
        ranges = {"shared": ("shared_base", "shared_size"), "global": ("global_base", "global_size"),
                  "local": ("local_base", "local_size")}  # fmt: skip
        if m[0] not in ranges:
            raise Unsupported(m[0])
        base, size = ranges[m[0]]
        return self.assign(o[0], f"({self.value(o[1], 'u64')} - {base} < {size})")

    def op_createpolicy(self, m, o, line):
        return self.assign(o[0], "uint64_t(0)")

    def op_cp(self, m, o, line):
        if m[:2] == ["async", "commit_group"]:
            return "t.team->commit_copies(t);"
        if m[:2] == ["async", "wait_group"]:
            return f"t.team->wait_copies(t, int({self.value(o[0], 'u32')}));"
        if m[:2] == ["async", "wait_all"]:
            return "t.team->wait_all_copies(t);"
        if m[0] != "async" or m[1] not in ("ca", "cg") or "L2::cache_hint" in m:
            raise Unsupported("cp")
        given = self.value(o[3], "u32") if len(o) > 3 else o[2]
        places = f"{self.address(o[0])[0]}, {self.address(o[1])[0]}"
        return f"t.team->copy_later(t, {line}, {places}, {o[2]}, int({given}));"

    # --- threads that meet

    def op_bar(self, m, o, line):
        if m[0] == "cta":
            m = m[1:]
        if m[0] == "warp":
            return f"t.team->warp_sync(t, {line}, {self.value(o[0], 'u32')});"
        if m[0] == "red":
            count = self.value(o[2], "u32") if len(o) == 4 else "0"
            answers = {"popc": "trues_", "and": "trues_ == all_", "or": "trues_ != 0"}
            return (
                "{ uint32_t trues_, all_; t.team->barrier_reduce"
                f"(t, {line}, {self.value(o[1], 'u32')}, {count}, {self.value(o[-1], 'pred')}, "
                f"trues_, all_); {self.assign(o[0], answers[m[1]])} }}"
            )
        count = self.value(o[1], "u32") if len(o) > 1 else "0"
        waits = {"sync": "true", "arrive": "false"}[m[0]]
        return f"t.team->barrier(t, {line}, {self.value(o[0], 'u32')}, {count}, {waits});"

    op_barrier = op_bar

    def op_shfl(self, m, o, line):
        into = [r.strip() for r in o[0].split("|")]
        arguments = ", ".join(self.value(x, "u32") for x in o[1:])
        s = f"{{ bool ok_; const uint32_t r_ = shfl<shuffle::{m[1]}>(t, {line}, {arguments}, ok_); "
        s += self.assign(into[0], "r_")
        if len(into) > 1:
            s += " " + self.assign(into[1], "ok_")
        return s + " }"

    def op_vote(self, m, o, line):
        arguments = f"t, {line}, {self.value(o[1], 'pred')}, {self.value(o[2], 'u32')}"
        return self.assign(o[0], f"vote_{m[1]}({arguments})")

    def op_activemask(self, m, o, line):
        return self.assign(o[0], "(1u << t.lane())")  # all that is promised

    def op_match(self, m, o, line):
        if m[0] != "any":
            raise Unsupported("match." + m[0])
        value = self.value(o[1], "u64" if m[-1] == "b64" else "u32")
        return self.assign(o[0], f"match_any(t, {line}, {value}, {self.value(o[2], 'u32')})")

    def op_redux(self, m, o, line):
        suffix = "_" if m[1] in ("and", "or", "xor") else ""
        arguments = f"{self.value(o[1], m[-1])}, {self.value(o[2], 'u32')}"
        return self.assign(o[0], f"redux<reduction::{m[1]}{suffix}>(t, {line}, {arguments})")

    def op_mma(self, m, o, line):
        shape = re.match(r"^m16n8k(\d+)$", m[2])
        kinds = m[-4:]
        if m[:2] != ["sync", "aligned"] or not shape or m[3:5] != ["row", "col"]:
            raise Unsupported("mma")
        if kinds[0] != "f32" or kinds[3] != "f32" or kinds[1] != kinds[2]:
            raise Unsupported("mma")
        if kinds[1] not in ("tf32", "f16", "bf16"):
            raise Unsupported("mma")
        d, a, b, c = [registers(x) for x in o]

        def array(name, tokens):
            values = ", ".join(self.value(x, "b32") for x in tokens)
            return f"const uint32_t {name}_[] = {{{values}}};"

        call = f"mma<element::{kinds[1]}, {shape.group(1)}>(t, {line}, a_, b_, c_, d_);"
        results = " ".join(self.assign(r, f"d_[{i}]") for i, r in enumerate(d))
        operands = " ".join((array("a", a), array("b", b), array("c", c)))
        return f"{{ {operands} uint32_t d_[4]; {call} {results} }}"

    def op_ldmatrix(self, m, o, line):
        if "m8n8" not in m or m[-1] != "b16":
            raise Unsupported("ldmatrix")
        into = registers(o[0])
        transposed = "true" if "trans" in m else "false"
        call = f"ldmatrix<{len(into)}, {transposed}>(t, {line}, {self.address(o[1])[0]}, d_);"
        results = " ".join(self.assign(r, f"d_[{i}]") for i, r in enumerate(into))
        return f"{{ uint32_t d_[{len(into)}]; {call} {results} }}"

    # --- moves and conversions

    def op_mov(self, m, o, line):
        kind = m[-1]
        whole = f"b{8 * SIZES[kind]}"
        if o[0].startswith("{"):
            into = registers(o[0])
            width = 8 * SIZES[kind] // len(into)
            parts = [
                self.assign(r, f"(uint{width}_t)(w_ >> {width * i})") for i, r in enumerate(into)
            ]
            return f"{{ const auto w_ = {self.value(o[1], whole)}; {' '.join(parts)} }}"
        if o[1].startswith("{"):
            parts = registers(o[1])
            width = 8 * SIZES[kind] // len(parts)
            values = [
                f"(({C_TYPES[whole]}){self.value(r, f'b{width}')} << {width * i})"
                for i, r in enumerate(parts)
            ]
            return self.assign(o[0], " | ".join(values))
        return self.assign(o[0], self.value(o[1], kind))

    def op_cvt(self, m, o, line):
        to, of = m[-2], m[-1]
        rounding = next((x for x in m if re.match(r"^r(na|[nzmp])i?$", x)), "none")
        narrow = {"f16": "half", "bf16": "bfloat"}
        if to == "tf32" and of == "f32" and rounding == "rna":
            return self.assign(o[0], f"to_tf32({self.value(o[1], 'f32')})")
        if to in ("f16x2", "bf16x2") and of == "f32" and rounding == "rn":
            name = narrow[to[:-2]]
            high, low = [f"to_{name}({self.value(x, 'f32')})" for x in o[1:]]
            return self.assign(o[0], f"uint32_t({high}) << 16 | {low}")
        if to in narrow and of == "f32" and rounding == "rn" and "sat" not in m:
            return self.assign(o[0], f"to_{narrow[to]}({self.value(o[1], 'f32')})")
        if of in narrow and to == "f32":
            return self.assign(o[0], f"from_{narrow[of]}({self.value(o[1], of)})")
        if any(k in narrow or k not in C_TYPES for k in (to, of)):
            raise Unsupported("cvt")
        value = self.value(o[1], of)
        if "ftz" in m and of == "f32":
            value = f"flush({value})"
        saturated = "true" if "sat" in m else "false"
        mode = f"{C_TYPES[to]}, {C_TYPES[of]}, mode::{rounding}, {saturated}"
        result = f"cvt<{mode}>({value})"
        if "ftz" in m and to == "f32":
            result = f"flush({result})"
        return self.assign(o[0], result)

    # --- arithmetic

    def op_add(self, m, o, line, name="add"):
        kind = m[-1]
        if kind in ("f32", "f64"):
            sign = "+" if name == "add" else "-"
            return self.assign(o[0], self.real(m, lambda a, b: f"({a} {sign} {b})", *o[1:]))
        if kind in ("f16", "bf16", "f16x2", "bf16x2"):
            raise Unsupported(kind)
        values = f"{self.value(o[1], kind)}, {self.value(o[2], kind)}"
        if "cc" in m:
            return self.assign(o[0], f"{name}_cc<{C_TYPES[kind]}>(cc, {values})")
        if "sat" in m:
            raise Unsupported("sat")
        return self.assign(o[0], f"wrap_{name}({values})")

    def op_sub(self, m, o, line):
        return self.op_add(m, o, line, "sub")

    def op_addc(self, m, o, line, name="addc"):
        kind = m[-1]
        carries = "true" if "cc" in m else "false"
        values = f"{self.value(o[1], kind)}, {self.value(o[2], kind)}"
        return self.assign(o[0], f"{name}<{C_TYPES[kind]}, {carries}>(cc, {values})")

    def op_subc(self, m, o, line):
        return self.op_addc(m, o, line, "subc")

    def op_mul(self, m, o, line):
        kind = m[-1]
        if kind in ("f32", "f64"):
            return self.assign(o[0], self.real(m, lambda a, b: f"({a} * {b})", *o[1:]))
        if m[0] not in ("lo", "hi", "wide"):
            raise Unsupported("mul")
        return self.assign(o[0], f"mul_{m[0]}({self.value(o[1], kind)}, {self.value(o[2], kind)})")

    def op_fma(self, m, o, line):
        if m == ["rm", "f32"]:
            values = ", ".join(self.value(x, "f32") for x in o[1:])
            return self.assign(o[0], f"fma_rm({values})")
        return self.assign(o[0], self.real(m, lambda a, b, c: f"fma_rn({a}, {b}, {c})", *o[1:]))

    def op_mad(self, m, o, line, carry_in="false"):
        kind = m[-1]
        if kind in ("f32", "f64"):
            return self.op_fma(m, o, line)
        wide = {"u32": "u64", "s32": "s64", "u16": "u32", "s16": "s32"}
        third = wide[kind] if m[0] == "wide" else kind
        product = f"mul_{m[0]}({self.value(o[1], kind)}, {self.value(o[2], kind)})"
        addend = self.value(o[3], third)
        if carry_in == "true" or "cc" in m:
            carry_out = "true" if "cc" in m else "false"
            flags = f"{C_TYPES[third]}, {carry_in}, {carry_out}"
            return self.assign(o[0], f"add_carry<{flags}>(cc, {product}, {addend})")
        return self.assign(o[0], f"wrap_add({product}, {addend})")

    def op_madc(self, m, o, line):
        return self.op_mad(m, o, line, "true")

    def op_div(self, m, o, line, name="div"):
        kind = m[-1]
        if kind in ("f32", "f64"):
            return self.assign(o[0], self.real(m, lambda a, b: f"({a} / {b})", *o[1:]))
        values = f"{self.value(o[1], kind)}, {self.value(o[2], kind)}"
        return self.assign(o[0], f"int_{name}(t, {line}, {values})")

    def op_rem(self, m, o, line):
        return self.op_div(m, o, line, "rem")

    def op_rcp(self, m, o, line):
        if "approx" in m and m[-1] == "f64":
            return self.assign(o[0], f"rcp_approx_f64({self.value(o[1], 'f64')})")
        one = f"{C_TYPES[m[-1]]}(1)"
        return self.assign(o[0], self.real(m, lambda a: f"({one} / {a})", o[1]))

    def op_sqrt(self, m, o, line):
        return self.assign(o[0], self.real(m, lambda a: f"std::sqrt({a})", o[1]))

    def op_rsqrt(self, m, o, line):
        one = f"{C_TYPES[m[-1]]}(1)"
        return self.assign(o[0], self.real(m, lambda a: f"({one} / std::sqrt({a}))", o[1]))

    def op_ex2(self, m, o, line, name="ex2"):
        if m[-1] != "f32":
            raise Unsupported(m[-1])
        return self.assign(o[0], self.real(m, lambda a: f"{name}_({a})", o[1]))

    def op_lg2(self, m, o, line):
        return self.op_ex2(m, o, line, "lg2")

    def op_sin(self, m, o, line):
        return self.op_ex2(m, o, line, "sin")

    def op_cos(self, m, o, line):
        return self.op_ex2(m, o, line, "cos")

    def op_tanh(self, m, o, line):
        return self.op_ex2(m, o, line, "tanh")

    def op_min(self, m, o, line, name="min"):
        kind = m[-1]
        if kind in ("f32", "f64"):
            if "NaN" in m or "xorsign" in m:
                raise Unsupported("min and max with NaN")
            result = self.real(m, lambda *v: f"f{name}_({', '.join(v)})", *o[1:])
            return self.assign(o[0], result)
        values = f"{self.value(o[1], kind)}, {self.value(o[2], kind)}"
        return self.assign(o[0], f"i{name}_({values})")

    def op_max(self, m, o, line):
        return self.op_min(m, o, line, "max")

    def op_abs(self, m, o, line, name="abs"):
        kind = m[-1]
        if kind in ("f32", "f64"):
            return self.assign(o[0], self.real(m, lambda a: f"{name}_({a})", o[1]))
        return self.assign(o[0], f"{name}_({self.value(o[1], kind)})")

    def op_neg(self, m, o, line):
        return self.op_abs(m, o, line, "neg")

    def op_copysign(self, m, o, line):
        kind = m[-1]
        values = f"{self.value(o[2], kind)}, {self.value(o[1], kind)}"
        return self.assign(o[0], f"std::copysign({values})")

    # --- bits

    def op_and(self, m, o, line, sign="&"):
        kind = m[-1]
        values = f"{self.value(o[1], kind)} {sign} {self.value(o[2], kind)}"
        return self.assign(o[0], f"({C_TYPES[kind]})({values})")

    def op_or(self, m, o, line):
        return self.op_and(m, o, line, "|")

    def op_xor(self, m, o, line):
        return self.op_and(m, o, line, "^")

    def op_not(self, m, o, line):
        kind = m[-1]
        value = self.value(o[1], kind)
        return self.assign(o[0], f"!{value}" if kind == "pred" else f"({C_TYPES[kind]})~{value}")

    def op_cnot(self, m, o, line):
        return self.assign(o[0], f"({C_TYPES[m[-1]]})({self.value(o[1], m[-1])} == 0)")

    def op_shl(self, m, o, line, name="shl"):
        values = f"{self.value(o[1], m[-1])}, {self.value(o[2], 'u32')}"
        return self.assign(o[0], f"{name}_({values})")

    def op_shr(self, m, o, line):
        return self.op_shl(m, o, line, "shr")

    def op_clz(self, m, o, line):
        return self.assign(o[0], f"(uint32_t)clz_({self.value(o[1], m[-1])})")

    def op_popc(self, m, o, line):
        return self.assign(o[0], f"(uint32_t)std::popcount({self.value(o[1], m[-1])})")

    def op_brev(self, m, o, line):
        return self.assign(o[0], f"brev_({self.value(o[1], m[-1])})")

    def op_bfi(self, m, o, line):
        values = [self.value(o[1], m[-1]), self.value(o[2], m[-1])]
        values += [self.value(o[3], "u32"), self.value(o[4], "u32")]
        return self.assign(o[0], f"bfi_({', '.join(values)})")

    def op_bfe(self, m, o, line):
        values = [self.value(o[1], m[-1]), self.value(o[2], "u32"), self.value(o[3], "u32")]
        return self.assign(o[0], f"bfe_({', '.join(values)})")

    def op_shf(self, m, o, line):
        values = ", ".join(self.value(x, "u32") for x in o[1:])
        return self.assign(o[0], f"shf_{m[0]}_{m[1]}({values})")

    def op_prmt(self, m, o, line):
        if m != ["b32"]:
            raise Unsupported("prmt")
        return self.assign(o[0], f"prmt_({', '.join(self.value(x, 'u32') for x in o[1:])})")

    def op_lop3(self, m, o, line):
        return self.assign(o[0], f"lop3_({', '.join(self.value(x, 'u32') for x in o[1:])})")

    # --- comparisons

    def op_selp(self, m, o, line):
        kind = m[-1]
        chosen = f"{self.value(o[1], kind)} : {self.value(o[2], kind)}"
        return self.assign(o[0], f"({self.value(o[3], 'pred')} ? {chosen})")

    def comparison(self, how, kind, x, y):
        real = kind in ("f32", "f64")
        ordered = {"eq": "==", "ne": "!=", "lt": "<", "le": "<=", "gt": ">", "ge": ">="}
        unsigned = {"lo": "<", "ls": "<=", "hi": ">", "hs": ">="}
        if how == "ne" and real:
            return f"fne({x}, {y})"
        if how in ordered:
            return f"({x} {ordered[how]} {y})"
        if how in unsigned:
            return f"({x} {unsigned[how]} {y})"
        either = f"std::isnan({x}) || std::isnan({y})"
        if how == "num":
            return f"!({either})"
        if how == "nan":
            return f"({either})"
        if how.endswith("u") and real:
            return f"({either} || {x} {ordered[how[:-1]]} {y})"
        raise Unsupported("comparison " + how)

    def op_setp(self, m, o, line):
        kind = m[-1]
        if kind in ("f16", "bf16", "f16x2", "bf16x2"):
            raise Unsupported(kind)
        values = [self.value(x, kind) for x in o[1:3]]
        if "ftz" in m:
            values = [f"flush({v})" for v in values]
        with_ = next((x for x in m[1:-1] if x in ("and", "or", "xor")), None)
        signs = {"and": "&&", "or": "||", "xor": "!="}
        rest = f" {signs[with_]} {self.value(o[3], 'pred')}" if with_ else ""
        into = [r.strip() for r in o[0].split("|")]
        s = f"{{ const bool is_ = {self.comparison(m[0], kind, *values)}; "
        s += f"const bool yes_ = is_{rest}; const bool no_ = !is_{rest}; (void)no_; "
        s += " ".join(self.assign(r, x) for r, x in zip(into, ("yes_", "no_")))
        return s + " }"

    # --- statements

    def label(self, name):
        return "L_" + identifier(name.strip())

    def declare_registers(self, statement):
        kind, names = re.match(r"\.reg\s+\.(\w+)\s+(.*)$", statement).groups()
        for name in names.split(","):
            many = re.match(r"^(%?[\w$]+)<(\d+)>$", name.strip())
            each = [name.strip()]
            if many:
                each = [f"{many.group(1)}{i}" for i in range(int(many.group(2)))]
            for r in each:
                self.scopes[-1][r] = kind
            top = len(self.scopes) == 1
            start = " = 0" if top else ""
            declared = ", ".join(f"v_{identifier(r)}{start}" for r in each)
            (self.hoisted if top else self.out).append(f"{register_type(kind)} {declared};")

    def declare_array(self, statement):
        pattern = r"\.local\s+(?:\.align\s+\d+\s+)?\.(\w+)\s+([\w$]+)(?:\[(\d+)\])?$"
        kind, name, count = re.match(pattern, statement).groups()
        size = SIZES[kind] * int(count or 1)
        self.arrays.add(name)
        n = identifier(name)
        self.hoisted.append(f"frame F_{n}(t, {size}); const uint64_t L_{n} = F_{n}.base;")

    def declare_call_parameters(self, statement):
        for name, _, size in parse_parameters(statement)[0]:
            self.call_scopes[-1].add(name)
            self.out.append(f"alignas(16) char q_{identifier(name)}[{size}];")

    def statement(self, s, line):
        if not s or s.startswith(".shared"):
            return
        if s.startswith(".reg"):
            return self.declare_registers(s)
        if s.startswith(".local"):
            return self.declare_array(s)
        if s.startswith(".param"):
            return self.declare_call_parameters(s)
        if s.startswith(".branchtargets"):
            self.unsupported.append((line, s))
            return
        if s.startswith("."):
            return  # .loc, .pragma
        condition = ""
        if match := re.match(r"^@(!?)(%?[\w$]+)\s+(.*)$", s, re.S):
            condition = f"if ({match.group(1)}v_{identifier(match.group(2))}) "
            s = match.group(3)
        name, operands = re.match(r"^([a-z][\w.:]*)\s*(.*)$", s, re.S).groups()
        try:
            code = self.instruction(name, operands.strip(), line)
        except (Unsupported, KeyError, IndexError, ValueError) as e:
            self.unsupported.append((line, f"{s} ({e})"))
            code = f"t.unsupported({line});"
        if code:
            self.out.append(f"{condition}{{ {code} }}" if condition else code)

    def instruction(self, name, operands, line):
        base, *modifiers = name.split(".")
        if base in NOTHING:
            return ""
        translate = getattr(self, "op_" + base, None)
        if translate is None:
            raise Unsupported(name)
        return translate(modifiers, split(operands), line)

    def run(self):
        rest, line = "", 0
        for at, text in self.function.body:
            if not text:
                continue
            if not rest:
                if text.startswith("{") and not re.match(r"^\{.*\}", text) and ";" not in text:
                    self.out.append("{")
                    self.scopes.append({})
                    self.call_scopes.append(set())
                    continue
                if text.startswith("}"):
                    self.out.append("}")
                    self.scopes.pop()
                    self.call_scopes.pop()
                    continue
                if match := re.match(r"^([\w$]+):$", text):
                    self.out.append(self.label(match.group(1)) + ":;")
                    continue
                line = at
            rest += " " + text
            while ";" in rest:
                statement, rest = rest.split(";", 1)
                self.statement(statement.strip(), line)
                rest = rest.strip()
        return self

    def signature(self, names=True):
        f = self.function
        if f.kind == "entry":
            return f"void k_{self.index}(thread& t, const char* P)"
        parameters = "".join(
            ", const char*" + (f" p_{identifier(n)}" if names else "") for n, *_ in f.parameters
        )
        return f"void fn_{identifier(f.name)}(thread& t, char* ret{parameters})"

    def text(self):
        first = f"enum {{ PSIZE = {self.function.parameter_bytes} }}; uint64_t cc = 0; (void)cc;"
        if self.function.kind == "func":
            first += " const char* P = nullptr; (void)P;"
        lines = [self.signature() + " {", first, *self.hoisted, *self.out, "}"]
        return "\n".join(lines) + "\n"


def tables(source, module, entries):
    """What the runtime learns of the file."""
    meets_in_function = any(f.meets for f in module.functions)
    layouts, shared, kernels = [], [], []
    for e in entries:
        f = e.function
        meets = f.meets or (meets_in_function and "call" in f.text)
        most = ", ".join(map(str, f.most_threads))
        variables = [v for v in e.shared.values() if v[1] > 0]
        kernels.append(
            f'{{"{f.name}", &k_{e.index}, {f.parameter_bytes}, {len(f.parameters)}, '
            f"LAYOUT + {len(layouts)}, {{{most}}}, {f.line}, {'true' if meets else 'false'}, "
            f"SHARED + {len(shared)}, {len(variables)}, {e.shared_end}}}"
        )
        layouts += [f"{{{offset}, {size}}}" for _, offset, size in f.parameters]
        shared += [f"{{{offset}, {size}}}" for offset, size in variables]
    variables = [
        f'{{"{v.name}", {v.size}, {v.alignment}, {f"D_{i}" if v.data else "nullptr"}, &G[{i}]}}'
        for i, v in enumerate(module.variables.values())
    ]

    def table(kind, name, rows, last):
        return f"const {kind} {name}[] = {{" + ",\n".join([*rows, last]) + "};"

    return [
        table("parameter_layout", "LAYOUT", layouts, "{0, 0}"),
        table("shared_variable", "SHARED", shared, "{0, 0}"),
        table("kernel_entry", "KERNELS", kernels, "{}"),
        table("global_entry", "GLOBALS", variables, "{}"),
        f'const registrar R("{source}", KERNELS, {len(kernels)}, GLOBALS, {len(variables)});',
    ]


def main():
    source, destination = sys.argv[1:]
    with open(source) as f:
        module = Module(f.read())
    functions = [Emitter(module, f, i).run() for i, f in enumerate(module.functions)]
    entries = [Emitter(module, f, i).run() for i, f in enumerate(module.entries)]
    out = ['#include "warp.hpp"', "using namespace emu;", "namespace {"]
    out.append(f"uint64_t G[{len(module.variables) + 1}];")
    for i, v in enumerate(module.variables.values()):
        if v.data:
            numbers = ",".join(map(str, v.data))
            out.append(f"alignas(16) const unsigned char D_{i}[] = {{{numbers}}};")
    out += [f.signature(names=False) + ";" for f in functions]
    out += [f.text() for f in functions + entries]
    out += tables(source, module, entries)
    out.append("}")
    with open(destination, "w") as f:
        f.write("\n".join(out) + "\n")
    bad = [u for e in functions + entries for u in e.unsupported]
    print(
        f"{len(entries)} kernels, {len(functions)} functions, {len(module.variables)} variables, "
        f"{len(bad)} instructions not translated"
    )
    for line, text in bad[:20]:
        print(f"  line {line}: {text}")


if __name__ == "__main__":
    main()

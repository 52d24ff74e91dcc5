"""The reference is whole: reference.py PROJECT. Doxygen reads all headers by docs/Doxyfile; it must understand every docstring, and every
public name must have one: types, functions, constants, data. Functions that are as usual (= default, = delete, destructors) need none, and
options have their meaning in their struct's list `fields` (core/options.hpp). Status 77 where Doxygen is not installed."""
import os, pathlib, re, shutil, subprocess, sys, tempfile
import xml.etree.ElementTree as xml

source = pathlib.Path(sys.argv[1]).resolve()
if not shutil.which("doxygen"):
    print("doxygen is not installed")
    sys.exit(77)

# A header whose bare names, and no others, must be found.
BARE = """/// \\file
/// A library.
namespace names {
/// A type.
struct documented {
  /// A member.
  int twice() const;
  int bare_member() const;
  template <class T>
  requires(sizeof(T) > 1) int bare_template(T x) const;
  int value = 0;  ///< data
  int bare_data = 0;
};
/// Options.
struct options {
  double radius = 1;
  double bare_option = 1;
  /// Names them.
  template <class Self, class Visit>
  static void fields(Self& s, Visit&& visit) {
    visit(option{"radius", "pixels that are mixed"}, s.radius);
  }
};
struct bare_type {};
/// A function.
int half(int x);
double half(double bare_overload);
enum class bare_choice { one, two };
inline constexpr int bare_constant = 1;
using bare_alias = int;
/// A concept.
template <class T>
concept number = true;
template <class T>
concept bare_concept = true;
}  // namespace names
"""


def listed(compound, header):
    """The options of a struct that its list names."""
    if not any(member.findtext("name") == "fields" for member in compound.iter("memberdef")):
        return set()
    return set(re.findall(r"visit\(\s*option\{.*?\},\s*\w+\.(\w+)\)", header.read_text(), re.S))


def described(element):
    return any("".join(part.itertext()).strip() for tag in ("briefdescription", "detaileddescription", "inbodydescription") for part in element.findall(tag))


def read(place, **settings):
    """What Doxygen complains of, and the public names without a docstring as {(file, line): name}. Files lie under `place`."""
    with tempfile.TemporaryDirectory() as folder:
        settings = {"GENERATE_HTML": "NO", "GENERATE_XML": "YES", "XML_PROGRAMLISTING": "NO", "WARN_IF_UNDOCUMENTED": "NO", **settings}
        given = (source / "docs" / "Doxyfile").read_text() + "".join(f"{key} = {value}\n" for key, value in settings.items())
        r = subprocess.run(["doxygen", "-"], input=given, cwd=source, capture_output=True, text=True, env=os.environ | {"MULTISTAGE_REFERENCE": folder})
        bare = {}
        for page in pathlib.Path(folder, "xml").glob("*.xml"):
            for compound in xml.parse(page).getroot().findall("compounddef"):
                kind = compound.get("kind")
                if kind not in ("class", "struct", "union", "concept", "namespace", "file") or compound.get("prot", "public") != "public":
                    continue
                names = [compound] if kind not in ("namespace", "file") else []
                options = listed(compound, place / compound.find("location").get("file")) if kind == "struct" else set()
                names += [m for m in compound.iter("memberdef") if m.get("prot") == "public"]
                for name in names:
                    where, arguments = name.find("location"), name.findtext("argsstring") or ""
                    as_usual = arguments.endswith(("=default", "=delete")) or (name.findtext("name") or "").startswith("~")
                    if not described(name) and not as_usual and name.findtext("name") not in options:
                        text = (name.findtext("compoundname") or name.findtext("definition") or name.findtext("name")) + arguments
                        bare[where.get("file"), int(where.get("line"))] = text
    return [line for line in r.stderr.splitlines() if line.strip()], bare


wrong, bare = read(source / "include")
for line in wrong:
    print(line)
for (file, line), name in sorted(bare.items()):
    print(f"{file}:{line}: {name} has no docstring")

with tempfile.TemporaryDirectory() as folder:
    pathlib.Path(folder, "bare.hpp").write_text(BARE)
    of_bare = read(pathlib.Path(folder), INPUT=folder, FILTER_PATTERNS="", USE_MDFILE_AS_MAINPAGE="")
wanted = {number for number, line in enumerate(BARE.splitlines(), 1) if "bare" in line}
found = {line for _, line in of_bare[1]}
if of_bare[0] or found != wanted:
    print(f"this test itself: of a header without docstrings at lines {sorted(wanted)} it finds {sorted(found)}", *of_bare[0], sep="\n")
print(f"{len(wrong)} complaints of Doxygen, {len(bare)} names without a docstring")
sys.exit(bool(wrong or bare or of_bare[0] or found != wanted))

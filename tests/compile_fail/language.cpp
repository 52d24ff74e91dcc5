// multistage: C++20 is needed: compile with -std=c++20
// with: -std=c++17
// lines: 15
#include <multistage/multistage.hpp>
namespace ms = multistage;
int main() { return int(ms::edm_heun{.num_steps = 18}.num_steps); }

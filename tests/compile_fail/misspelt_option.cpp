// num_step
// lines: 15
#include <multistage/multistage.hpp>
namespace ms = multistage;
int main() { return int(ms::edm_heun{.num_step = 18}.num_steps); }

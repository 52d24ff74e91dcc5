// multistage: exceptions are needed, errors are reported by them: compile without -fno-exceptions
// with: -std=c++20 -fno-exceptions
// lines: 15
#include <multistage/multistage.hpp>
int main() { return 0; }

// multistage: exceptions are needed, they report errors: compile without -fno-exceptions
// with: -std=c++20 -fno-exceptions
// lines: 15
#include <multistage/multistage.hpp>
int main() { return 0; }

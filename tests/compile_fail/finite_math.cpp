// multistage: -ffast-math hides NaN and infinity: put -fno-finite-math-only behind it
// with: -std=c++20 -ffast-math
// lines: 15
#include <multistage/multistage.hpp>
int main() {
  return 0;
}

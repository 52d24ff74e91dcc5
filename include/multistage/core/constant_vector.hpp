// The vector of code that also runs at compile time.
#pragma once
#include <vector>

namespace multistage {

/// std::vector; where libstdc++ checks its containers (_GLIBCXX_DEBUG), whose checked one is
/// not for constant expressions, the one beneath.
#ifdef _GLIBCXX_DEBUG
template <class T>
using constant_vector = std::__cxx1998::vector<T>;
#else
template <class T>
using constant_vector = std::vector<T>;
#endif

}  // namespace multistage

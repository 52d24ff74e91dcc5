// What tests of files share: a directory of their own, a process of their own, and what an
// error says.
#pragma once
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <functional>
#include <multistage/core/error.hpp>
#include <string>
#include <vector>

namespace ms = multistage;

namespace test {

/// A directory of this test's own, gone at its end.
struct directory {
  std::string path = std::filesystem::temp_directory_path() /
                     ("multistage-test-" + std::to_string(::getpid()));
  directory() {
    std::filesystem::create_directories(path);
  }
  ~directory() {
    std::filesystem::remove_all(path);
  }
  directory(const directory&) = delete;
  std::string operator/(const char* name) const {
    return path + "/" + name;
  }
  std::string operator/(const std::string& name) const {
    return path + "/" + name;
  }
  /// Names in it, sorted.
  std::vector<std::string> names() const {
    std::vector<std::string> list;
    for (const auto& e : std::filesystem::directory_iterator(path))
      list.push_back(e.path().filename().string());
    std::sort(list.begin(), list.end());
    return list;
  }
};

/// Runs f in a process of its own, which ends without destructors; returns how it ended.
template <class F>
int in_child(F&& f) {
  const pid_t child = ::fork();
  if (child == 0) {
    try {
      f();
    } catch (...) {
      ::_exit(99);
    }
    ::_exit(0);
  }
  int status = 0;
  ::waitpid(child, &status, 0);
  return status;
}

/// What an error of the library says, or "nothing".
inline std::string message(const std::function<void()>& f) {
  try {
    f();
  } catch (const ms::error& e) {
    return e.what();
  }
  return "nothing";
}

}  // namespace test

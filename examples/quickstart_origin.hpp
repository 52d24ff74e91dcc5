// How the quickstart's run came about, so that its report tells what it shows: command,
// machine, compiler, commit.
#pragma once
#include <sys/utsname.h>

#include <fstream>
#include <string>
#include <thread>

// Written by CMake into build_info.cpp, a unit of its own: a commit compiles nothing else anew.
extern const char* const quickstart_commit;
extern const char* const quickstart_flags;

struct quickstart_origin {
  std::string command;
  std::string machine;   // processor, threads, system
  std::string compiler;  // with its flags
  std::string commit;    // of the sources; "-dirty" behind it where they were changed
};

/// A word as a shell takes it back.
inline std::string quickstart_quoted(const std::string& word) {
  if (!word.empty() &&
      word.find_first_not_of(
          "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-./=+:,") ==
          std::string::npos)
    return word;
  std::string quoted = "'";
  for (const char c : word)
    quoted += c == '\'' ? std::string("'\\''") : std::string(1, c);
  return quoted + "'";
}

inline quickstart_origin quickstart_origin_of(int argc, const char* const* argv) {
  quickstart_origin origin;
  for (int i = 0; i < argc; ++i)
    origin.command += (i > 0 ? " " : "") + quickstart_quoted(argv[i]);
  origin.machine = "unknown processor";
  std::ifstream processors("/proc/cpuinfo");
  for (std::string line; std::getline(processors, line);)
    if (line.starts_with("model name")) {
      origin.machine = line.substr(line.find(':') + 2);
      break;
    }
  origin.machine += ", " + std::to_string(std::thread::hardware_concurrency()) + " threads";
  if (utsname system{}; uname(&system) == 0)
    origin.machine += std::string(", ") + system.sysname + " " + system.release;
#ifdef __clang__
  origin.compiler = __VERSION__;
#else
  origin.compiler = std::string("g++ ") + __VERSION__;
#endif
  origin.compiler += std::string(", ") + quickstart_flags;
  origin.commit = quickstart_commit;
  return origin;
}

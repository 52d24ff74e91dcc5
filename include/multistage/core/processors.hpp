// How many processors a process may keep busy. What the machine has says little in a container
// or under a batch system, where a process may run on some of them, or is paid some seconds of
// computing in each second (a control group's quota) and stands still when they are spent.
//
// Three answers are taken and the least one holds: the processors that the thread may run on
// (sched_getaffinity), the quota of the control group and of all groups above it, by version 2
// (cpu.max) or 1 (cpu.cfs_quota_us over cpu.cfs_period_us), and what the machine has.
//
//   usable_processors();      // 2 in a container that is paid two processors of sixty-four
#pragma once
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <memory>
#include <sstream>
#include <string>
#include <thread>
#ifdef __linux__
#include <sched.h>
#endif

#include "config.hpp"

namespace multistage {

namespace processors_detail {

/// A small file's content; nothing when it cannot be read.
MULTISTAGE_COLD inline std::string content(const std::string& path) {
  std::string text;
  const auto close = [](std::FILE* f) {
    std::fclose(f);
  };
  const std::unique_ptr<std::FILE, decltype(close)> file(std::fopen(path.c_str(), "r"), close);
  char part[4096];
  while (file) {
    const std::size_t n = std::fread(part, 1, sizeof part, file.get());
    if (n == 0)
      break;
    text.append(part, n);
  }
  return text;
}

/// Processors that the quota of one control group pays for.
MULTISTAGE_COLD inline double quota_of_group(const std::string& folder) {
  long long quota = 0;
  long long period = 0;
  // Version 2 has "quota period" or "max period", version 1 a file for each, -1 for no limit.
  if (std::sscanf(content(folder + "/cpu.max").c_str(), "%lld %lld", &quota, &period) != 2) {
    const std::string q = content(folder + "/cpu.cfs_quota_us");
    const std::string p = content(folder + "/cpu.cfs_period_us");
    if (std::sscanf(q.c_str(), "%lld", &quota) != 1)
      return HUGE_VAL;
    if (std::sscanf(p.c_str(), "%lld", &period) != 1)
      return HUGE_VAL;
  }
  return quota > 0 && period > 0 ? double(quota) / double(period) : HUGE_VAL;
}

/// The path of this process's group in the hierarchy of version 2, or in version 1's for "cpu".
MULTISTAGE_COLD inline std::string group_path(const std::string& root, bool version2) {
  // Lines like "0::/a" (version 2) and "4:cpu,cpuacct:/a".
  std::istringstream groups(content(root + "/proc/self/cgroup"));
  for (std::string line; std::getline(groups, line);) {
    const std::size_t first = line.find(':');
    const std::size_t second = line.find(':', first + 1);
    if (second == std::string::npos)
      continue;
    const std::string controllers = "," + line.substr(first + 1, second - first - 1) + ",";
    const bool none = controllers == ",,";
    const bool cpu = controllers.find(",cpu,") != std::string::npos;
    if (version2 ? none : cpu)
      return line.substr(second + 1);
  }
  return "/";
}

/// The least quota of this process's group and the groups above it, as far as they can be seen.
MULTISTAGE_COLD inline double quota(const std::string& root) {
  double least = HUGE_VAL;
  std::istringstream mounts(content(root + "/proc/self/mountinfo"));
  for (std::string line; std::getline(mounts, line);) {
    const std::size_t dash = line.find(" - ");
    if (dash == std::string::npos)
      continue;
    std::string id;
    std::string parent;
    std::string device;
    std::string top;
    std::string folder;
    std::string type;
    std::string source;
    std::string options;
    std::istringstream(line.substr(0, dash)) >> id >> parent >> device >> top >> folder;
    std::istringstream(line.substr(dash + 3)) >> type >> source >> options;
    const bool cpu = ("," + options + ",").find(",cpu,") != std::string::npos;
    const bool version2 = type == "cgroup2";
    const bool version1 = type == "cgroup" && cpu;
    if (!version1 && !version2)
      continue;
    // The mount shows the hierarchy from the group `top` downwards.
    std::string path = group_path(root, version2);
    if (top == "/")
      top.clear();
    const bool whole_name = path.size() == top.size() || path[top.size()] == '/';
    const bool below = path.compare(0, top.size(), top) == 0 && whole_name;
    const bool plain = path.find("/..") == std::string::npos;
    path = below && plain ? path.substr(top.size()) : "";
    for (;; path.resize(path.rfind('/'))) {
      least = std::min(least, quota_of_group(root + folder + path));
      if (path.empty())
        break;
    }
  }
  return least;
}

/// Processors on which the calling thread may run.
MULTISTAGE_COLD inline int by_affinity() {
#ifdef __linux__
  // The kernel refuses a set that is too small.
  for (int most = 1024; most <= 1 << 20; most *= 2) {
    const auto release = [](cpu_set_t* set) {
      CPU_FREE(set);
    };
    const std::unique_ptr<cpu_set_t, decltype(release)> set(CPU_ALLOC(std::size_t(most)),
                                                            release);
    const std::size_t bytes = CPU_ALLOC_SIZE(std::size_t(most));
    if (set && ::sched_getaffinity(0, bytes, set.get()) == 0)
      return CPU_COUNT_S(bytes, set.get());
  }
#endif
  return int(std::thread::hardware_concurrency());
}

}  // namespace processors_detail

/// Processors that the calling thread's work may keep busy all the time: those it may run on
/// (affinity), and no more than the control groups' quotas (cgroup versions 1 and 2) pay for,
/// rounded down; at least 1. @param root where the system's files are, for tests
MULTISTAGE_COLD inline int usable_processors(const std::string& root = "") {
  const double paid = std::floor(processors_detail::quota(root));
  return std::max(1, int(std::min(double(processors_detail::by_affinity()), paid)));
}

}  // namespace multistage

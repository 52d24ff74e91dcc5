// A run that is started again when it fails, as torchrun's --max-restarts does: a process that
// computes nothing itself watches the run, of one process or of all that mpirun starts, and
// begins it anew where it was saved.
//
//   return run_with_restarts({.first = {"train", "--data", "icons", "--out", "runs/icons"},
//                             .again = {"train", "--resume", "--out", "runs/icons"}, ...});
//
// Where one process of an MPI program dies, all of them end with it; so what goes on has to
// stand outside.
#pragma once
#include <fcntl.h>
#include <spawn.h>
#include <sys/wait.h>

#include <cerrno>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "../core/error.hpp"
#include "../core/signals.hpp"

/// The environment of this process, which POSIX leaves to programs to declare.
extern char** environ;

namespace multistage {

/// Runs a program found by its path or name, without an input, and returns its exit status, 128
/// + the number of the signal that ended it. Signals that ask this process to end reach it.
/// @throws state_error when it cannot be started
MULTISTAGE_COLD inline int run_program(std::vector<std::string> words,
                                       const stop_signals& stop) {
  std::vector<char*> arguments;
  for (std::string& word : words)
    arguments.push_back(word.data());
  arguments.push_back(nullptr);
  // In a group of its own Ctrl-C reaches it by this process alone: mpirun takes a second one as
  // an order to kill.
  posix_spawnattr_t how;
  posix_spawnattr_init(&how);
  posix_spawnattr_setflags(&how, POSIX_SPAWN_SETPGROUP);
  posix_spawn_file_actions_t files;
  posix_spawn_file_actions_init(&files);
  posix_spawn_file_actions_addopen(&files, 0, "/dev/null", O_RDONLY, 0);
  ::pid_t child = 0;
  const int problem =
      ::posix_spawnp(&child, arguments[0], &files, &how, arguments.data(), ::environ);
  posix_spawn_file_actions_destroy(&files);
  posix_spawnattr_destroy(&how);
  require<state_error>(problem == 0, words[0], ": cannot be started: ", std::strerror(problem));
  int status = 0;
  for (int told = 0;;) {
    const ::pid_t ended = ::waitpid(child, &status, WNOHANG);
    require<state_error>(ended >= 0 || errno == EINTR, words[0],
                         ": cannot be waited for: ", std::strerror(errno));
    if (ended == child)
      return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
    if (const int signal = stop.caught(); signal != told) {
      ::kill(child, signal);
      told = signal;
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
  }
}

/// A run and how it goes on.
struct restartable_run {
  std::vector<std::string> first;   ///< the command that begins it
  std::vector<std::string> again;   ///< that which goes on with it
  int most = 0;                     ///< how often that may be
  std::function<bool()> has_begun;  ///< whether there is anything to go on with
  double seconds_between = 1;       ///< for what is left of the processes to end
};

/// Runs it until it ends well, is asked to end, or has failed too often. Returns the exit
/// status of the last one. @throws state_error when it cannot be started
MULTISTAGE_COLD inline int run_with_restarts(const restartable_run& run) {
  const stop_signals stop;
  // mpirun gives processes a second between asking them to end and killing them; saving takes
  // longer. It always waits for so long, so that a failure takes that much more. A machine that
  // cannot be reached it notices after eight minutes.
  for (const auto& [name, value] : {std::pair{"odls_base_sigkill_timeout", "15"},
                                    {"oob_tcp_keepalive_time", "30"},
                                    {"oob_tcp_keepalive_intvl", "10"},
                                    {"oob_tcp_keepalive_probes", "3"}})
    ::setenv((std::string("OMPI_MCA_") + name).c_str(), value, 0);
  int status = run_program(run.first, stop);
  for (int i = 1; i <= run.most && status != 0 && stop.caught() == 0; ++i) {
    if (!run.has_begun())
      return status;
    std::fprintf(stderr, "the run ended with status %d; restart %d of %d goes on with it\n",
                 status, i, run.most);
    std::this_thread::sleep_for(std::chrono::duration<double>(run.seconds_between));
    status = run_program(run.again, stop);
  }
  return status;
}

}  // namespace multistage

// The main of a program that may be one process of several: started by mpirun it is one of
// them; started by itself it is alone, and MPI is needed neither to build nor to run it.
//
//   int main(int argc, char** argv) {
//     return ms::run_together(argc, argv, [&](ms::process_group world) {
//       ... ms::sample(net, ms::edm_heun{}, {.seeds = "0-63", .processes = world}) ...
//       return 0;
//     });
//   }
//
// MULTISTAGE_MPI says that MPI is there; linking with the target multistage::mpi defines it.
// Rank 0 speaks for all: what the others print on stdout, their warnings and their progress
// are dropped, their errors are not.
#pragma once
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <functional>

#include "../core/fingerprint.hpp"
#include "../core/program.hpp"
#include "../core/progress.hpp"
#include "../core/warning.hpp"
#include "process_group.hpp"
#include "together.hpp"
#ifdef MULTISTAGE_MPI
#include "mpi.hpp"
#endif

namespace multistage {

/// How processes of a program go together.
struct together_options {
  /// After how many seconds without all others a process gives up: more than the longest time
  /// that one of them may be busy with work of its own.
  double timeout_seconds = 600;
};

namespace launch {

/// A whole number from the environment; -1 where there is none.
MULTISTAGE_COLD inline int number_of(const char* variable) {
  const char* text = std::getenv(variable);
  return text == nullptr || *text == '\0' ? -1 : std::atoi(text);
}
/// This process's rank as what starts MPI's processes tells it (Open MPI, PMIx, and PMI of
/// MPICH and SLURM); -1: no such thing started it.
MULTISTAGE_COLD inline int rank_by_mpi() {
  for (const char* variable : {"OMPI_COMM_WORLD_RANK", "PMIX_RANK", "PMI_RANK"})
    if (const int rank = number_of(variable); rank >= 0)
      return rank;
  return -1;
}
/// Whether this process speaks for all, which is known before they have met.
inline bool is_first() {
  return rank_by_mpi() <= 0;
}

/// The command line as one would type it.
MULTISTAGE_COLD inline std::string words_of(int argc, char** argv) {
  std::string words;
  for (int i = 0; i < argc; ++i)
    words += (i > 0 ? " " : "") + std::string(argv[i]);
  return words;
}

/// Refuses a start by what starts processes but no MPI. @throws state_error, on other
/// processes than the first its echo
MULTISTAGE_COLD inline void check_start(int argc, char** argv) {
  const int rank = number_of("RANK");
  const int size = number_of("WORLD_SIZE");
  if (rank < 0 || size <= 1)
    return;
  if (rank > 0)
    fail<echoed_error>("RANK ", rank);
  fail<state_error>("this process is RANK 0 of WORLD_SIZE = ", size,
                    " (by torchrun or its kin), which starts processes but not MPI, through "
                    "which they would work together. Start it by\n  mpirun -n ",
                    size, " ", words_of(argc, argv),
                    "\nwith --host A:8,B:8 for several machines, or under SLURM by srun "
                    "--mpi=pmix (docs/distributed.md); one process alone runs without RANK "
                    "and WORLD_SIZE");
}

/// Refuses an MPI that does not know the processes that were started: one's mpirun started a
/// program that was built with another. @throws state_error, on other processes its echo
MULTISTAGE_COLD inline void check_size(int size, bool speaks) {
  const int told = std::max(number_of("OMPI_COMM_WORLD_SIZE"), number_of("PMI_SIZE"));
  if (told <= 1 || told == size)
    return;
  require<echoed_error>(speaks, "another MPI");
  fail<state_error>(told, " processes were started, of which MPI knows ", size,
                    ": mpirun is of another MPI than the one that this program was built with; "
                    "start it by that one's, or build it again with the other");
}

/// What all processes have in common: the program and its command line, a fact a line.
MULTISTAGE_COLD inline std::string facts_of(int argc, char** argv) {
  fingerprinter program;
  std::ifstream file("/proc/self/exe", std::ios::binary);
  std::vector<char> some(1 << 20);
  while (file.read(some.data(), std::streamsize(some.size())) || file.gcount() > 0)
    program.add(bytes_in_memory(
        std::span<const char>(some.data(), static_cast<std::size_t>(file.gcount()))));
  std::string facts =
      std::string("multistage ") + library_version + ", program " + program.text();
  for (int i = 1; i < argc; ++i)
    facts += "\nargument " + std::to_string(i) + " is " + argv[i];
  return facts;
}

/// Leaves it to rank 0 to speak.
MULTISTAGE_COLD inline void be_quiet() {
  (void)!std::freopen("/dev/null", "w", stdout);
  set_warning_handler([](const std::string&) {});
  progress::silence();
}

/// The program as one of several.
MULTISTAGE_COLD inline int as_one_of(process_group world,
                                     int argc,
                                     char** argv,
                                     const std::function<int(process_group)>& f) {
  if (world.rank() != 0)
    be_quiet();
  require_same(world, "program", facts_of(argc, argv));
  const int status = f(world);
  // Who has come to its end, or to that of a signal, waits for the others; who has failed
  // does not.
  if (status == 0 || status > 128)
    world.barrier();
  return status;
}

#ifdef MULTISTAGE_MPI
/// Runs f(). What it throws on several processes alike the first of them throws, the others its
/// echo; but on rank 0 it has the process's name before it.
template <class F>
int said_once(mpi_communicator& world, F&& f) {
  try {
    return f();
  } catch (const communication_error&) {  // says it once, and names who is gone
    throw;
  } catch (const echoed_error&) {
    throw;
  } catch (const std::exception& e) {
    require<echoed_error>(world.is_first_to_say(in_words(e)), in_words(e));
    if (world.rank() == 0)
      throw;
    fail<state_error>("rank ", world.rank(), " (", world.host(world.rank()),
                      "): ", in_words(e));
  }
}
#endif

}  // namespace launch

/// The body of a program's main: runs f with all processes that mpirun started, or with this
/// one alone, and returns the exit status as exit_status does. Processes whose program or
/// command line is another than rank 0's are refused.
/// @param f the program; gives its exit status
MULTISTAGE_COLD inline int run_together(int& argc,
                                        char**& argv,
                                        const std::function<int(process_group)>& f,
                                        [[maybe_unused]] const together_options& options = {}) {
  return exit_status([&]() -> int {
    if (launch::rank_by_mpi() < 0) {
      launch::check_start(argc, argv);
      return f(process_group());
    }
#ifdef MULTISTAGE_MPI
    const bool speaks = launch::is_first();  // MPI changes the environment
    mpi_session mpi(argc, argv, {.timeout_seconds = options.timeout_seconds});
    return exit_status([&] {
      launch::check_size(mpi.world().size(), speaks);
      return launch::said_once(mpi.world(),
                               [&] { return launch::as_one_of(mpi.world(), argc, argv, f); });
    });
#else
    require<state_error>(!launch::is_first(),
                         "this program was started by mpirun, but built without MPI; install "
                         "libopenmpi-dev (Debian) or another MPI, configure and build again, "
                         "or start it by itself");
    fail<echoed_error>("built without MPI");
#endif
  });
}

}  // namespace multistage

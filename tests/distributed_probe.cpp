// Processes that work together for a second, of which one may do what it should not:
// distributed_probe [stop|kill|throw|exit|together|term|none RANK [STEPS]]. The tests
// distributed_faults.py and distributed_hosts.py look at what the others say, and when.
#include <csignal>
#include <cstdlib>
#include <multistage/core/program.hpp>
#include <multistage/distributed/mpi.hpp>
#include <multistage/distributed/process_group.hpp>
#include <multistage/distributed/together.hpp>
#include <string>

namespace ms = multistage;

int main(int argc, char** argv) {
  ms::mpi_session mpi(argc, argv, {.timeout_seconds = 3});
  return ms::exit_status([&] {
    ms::process_group group = mpi.world();
    const std::string fault = argc > 2 ? argv[1] : "";
    const bool mine = argc > 2 && std::atoi(argv[2]) == group.rank();
    const int steps = argc > 3 ? std::atoi(argv[3]) : 100;
    const ms::stop_signals stop;
    if (group.rank() == 0)
      for (int rank = 0; rank < group.size(); ++rank)
        std::printf("rank %d on %s\n", rank, group.host(rank).c_str());
    std::fflush(stdout);
    for (int step = 0; step < steps; ++step) {
      if (mine && step == 50) {
        if (fault == "stop")
          std::raise(SIGSTOP);
        if (fault == "kill")
          std::raise(SIGKILL);
        if (fault == "throw")
          throw ms::file_error("model.safetensors: no space left on the device");
        if (fault == "exit")
          return 3;
        if (fault == "term")
          std::raise(SIGTERM);
      }
      if (ms::any(group, stop.caught() != 0)) {
        std::this_thread::sleep_for(std::chrono::milliseconds(1500));  // as if it saved
        std::printf("saved by rank %d\n", group.rank());
        return 128 + SIGTERM;
      }
      ms::together(group, [&] {
        if (mine && step == 50 && fault == "together")
          throw ms::file_error("model.safetensors: no space left on the device");
      });
      int ranks = 0;
      group.start([&] {
        for (const int rank : ms::values_of_all(group, group.rank()))
          ranks += rank;
      });
      std::this_thread::sleep_for(std::chrono::milliseconds(2));  // as if it computed
      group.finish();
      if (ranks != group.size() * (group.size() - 1) / 2)
        throw ms::state_error("not all were there");
    }
    if (group.rank() == 0)
      std::printf("done\n");
    return 0;
  });
}

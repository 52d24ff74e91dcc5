// Processes that work together for a second, of which one may do what it should not:
// distributed_probe [stop|kill|throw|exit|together RANK]. tests/distributed_faults.py looks at
// what the others say, and when.
#include <csignal>
#include <cstdlib>
#include <multistage/core/program.hpp>
#include <multistage/distributed/mpi.hpp>
#include <multistage/distributed/together.hpp>
#include <string>

namespace ms = multistage;

int main(int argc, char** argv) {
  ms::mpi_session mpi(argc, argv, {.timeout_seconds = 3});
  return ms::exit_status([&] {
    ms::mpi_communicator& group = mpi.world();
    const std::string fault = argc > 2 ? argv[1] : "";
    const bool mine = argc > 2 && std::atoi(argv[2]) == group.rank();
    for (int step = 0; step < 100; ++step) {
      if (mine && step == 50) {
        if (fault == "stop")
          std::raise(SIGSTOP);
        if (fault == "kill")
          std::raise(SIGKILL);
        if (fault == "throw")
          throw ms::file_error("model.safetensors: no space left on the device");
        if (fault == "exit")
          return 3;
      }
      ms::together(group, [&] {
        if (mine && step == 50 && fault == "together")
          throw ms::file_error("model.safetensors: no space left on the device");
      });
      std::this_thread::sleep_for(std::chrono::milliseconds(2));
    }
    if (group.rank() == 0)
      std::printf("done\n");
    return 0;
  });
}

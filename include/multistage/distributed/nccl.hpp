// Processes with a GPU each, which exchange bytes over NCCL. It starts no processes and hands
// round no addresses: they are started by whatever starts them, and rank 0's id reaches the
// others over a communicator that is there already (MPI's), or in a file that all can read.
//
//   ms::mpi_session mpi(argc, argv);
//   ms::nccl_communicator group(mpi.world());          // GPU: rank on its machine
//
//   torchrun --nproc-per-node 8 --no-python program    // RANK, WORLD_SIZE, LOCAL_RANK
//   ms::nccl_communicator group = ms::nccl_from_environment("/shared/run-17.id");
//
// Spans may lie in the GPU's memory, and are sent from there, or in the host's, and are staged.
// A process that is gone, or does not come, ends the wait as it does over MPI; which one it
// was NCCL does not tell.
//
// Never run: no machine with two GPUs was at hand. It compiles against NCCL 2.28, and links.
#pragma once
#include <cuda_runtime_api.h>
#include <nccl.h>
#include <unistd.h>

#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <memory>
#include <thread>

#include "../core/stopwatch.hpp"
#include "communicator.hpp"

namespace multistage {

/// How processes wait for one another.
struct nccl_options {
  /// After how many seconds without all others a process gives up.
  double timeout_seconds = 600;
};

namespace nccl_detail {

/// @throws communication_error for what NCCL says
inline void checked(ncclResult_t status, const char* call) {
  require<communication_error>(status == ncclSuccess || status == ncclInProgress,
                               "NCCL: ", call, ": ", ncclGetErrorString(status));
}
/// @throws communication_error for what CUDA says
inline void checked(cudaError_t status, const char* call) {
  require<communication_error>(status == cudaSuccess, "NCCL: ", call, ": ",
                               cudaGetErrorString(status));
}

/// Memory of the GPU.
class device_bytes {
 public:
  explicit device_bytes(std::size_t size) {
    if (size > 0)
      checked(cudaMalloc(&at_, size), "cudaMalloc");
  }
  ~device_bytes() {
    cudaFree(at_);
  }
  device_bytes(const device_bytes&) = delete;
  device_bytes& operator=(const device_bytes&) = delete;
  std::byte* data() const {
    return static_cast<std::byte*>(at_);
  }

 private:
  void* at_ = nullptr;
};

/// Whether a pointer is the GPU's.
inline bool is_on_device(const void* at) {
  cudaPointerAttributes of{};
  if (at == nullptr || cudaPointerGetAttributes(&of, at) != cudaSuccess)
    return false;
  return of.type == cudaMemoryTypeDevice || of.type == cudaMemoryTypeManaged;
}

/// Where each rank's bytes begin.
inline std::vector<std::size_t> begins(bytes_by_rank parts) {
  std::vector<std::size_t> list(1, 0);
  for (const std::size_t part : parts)
    list.push_back(list.back() + part);
  return list;
}

}  // namespace nccl_detail

/// A group of processes with a GPU each, that which is current when it is made. One thread at a
/// time; copies are the same group.
class nccl_communicator : public numbered_processes {
 public:
  /// @param id rank 0's, made by ncclGetUniqueId. All `size` processes call this.
  /// @throws communication_error
  MULTISTAGE_COLD nccl_communicator(const ncclUniqueId& id,
                                    int rank,
                                    int size,
                                    const nccl_options& options = {})
      : numbered_processes(rank, size),
        group_(std::make_shared<group>(id, rank, size, options)) {
    char name[256] = "";
    ::gethostname(name, sizeof name - 1);
    set_hosts(multistage::all_gather(*this, std::string(name)));
  }
  /// The processes of another communicator, over which rank 0's id is handed round. On each
  /// machine they take the GPUs in the order of their ranks. @throws communication_error
  template <class C>
  requires(!std::same_as<C, nccl_communicator> && communicator<C>) MULTISTAGE_COLD
      explicit nccl_communicator(C over, const nccl_options& options = {})
      : nccl_communicator(id_over(over), over.rank(), over.size(), options) {}

  /// Returns when all have come. @throws communication_error, as all below do
  void barrier() {
    const nccl_detail::device_bytes one(1);
    nccl_detail::checked(cudaMemsetAsync(one.data(), 0, 1, group_->stream), "cudaMemsetAsync");
    nccl_detail::checked(ncclAllReduce(one.data(), one.data(), 1, ncclUint8, ncclSum,
                                       group_->comm, group_->stream),
                         "a barrier");
    wait("a barrier");
  }
  /// The root's bytes to all.
  void broadcast(bytes_to_fill to, int root) {
    exchange("a broadcast", to, to, [&](const std::byte* from, std::byte* here) {
      return ncclBroadcast(from, here, to.size(), ncclUint8, root, group_->comm,
                           group_->stream);
    });
  }
  /// Each one's bytes to all, in rank order.
  void all_gather(bytes_to_send from, bytes_to_fill to, bytes_by_rank received) {
    const std::vector<std::size_t> begin = nccl_detail::begins(received);
    exchange("an all-gather", from, to, [&](const std::byte* mine, std::byte* all) {
      ncclResult_t status = ncclGroupStart();
      for (int r = 0; r < size() && status == ncclSuccess; ++r)
        status = ncclBroadcast(mine, all + begin[std::size_t(r)], received[std::size_t(r)],
                               ncclUint8, r, group_->comm, group_->stream);
      const ncclResult_t end = ncclGroupEnd();
      return status == ncclSuccess ? end : status;
    });
  }
  /// A part of one's own for each: sent[r] bytes go to rank r, received[r] come from it.
  void all_to_all(bytes_to_send from,
                  bytes_by_rank sent,
                  bytes_to_fill to,
                  bytes_by_rank received) {
    const std::vector<std::size_t> out = nccl_detail::begins(sent);
    const std::vector<std::size_t> in = nccl_detail::begins(received);
    exchange("an exchange", from, to, [&](const std::byte* mine, std::byte* theirs) {
      ncclResult_t status = ncclGroupStart();
      for (int r = 0; r < size() && status == ncclSuccess; ++r) {
        const auto i = std::size_t(r);
        if (sent[i] > 0)
          status = ncclSend(mine + out[i], sent[i], ncclUint8, r, group_->comm, group_->stream);
        if (received[i] > 0 && status == ncclSuccess)
          status =
              ncclRecv(theirs + in[i], received[i], ncclUint8, r, group_->comm, group_->stream);
      }
      const ncclResult_t end = ncclGroupEnd();
      return status == ncclSuccess ? end : status;
    });
  }

 private:
  struct group {
    group(const ncclUniqueId& id, int r, int n, const nccl_options& o)
        : options(o) {
      require<value_error>(n > 0 && r >= 0 && r < n && o.timeout_seconds > 0,
                           "nccl_communicator: rank ", r, " of ", n,
                           ", timeout_seconds = ", o.timeout_seconds,
                           "; ranks are 0 to size - 1, a time is above 0");
      nccl_detail::checked(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking),
                           "cudaStreamCreate");
      const ncclResult_t status = ncclCommInitRank(&comm, n, id, r);
      if (status != ncclSuccess)
        cudaStreamDestroy(stream);
      nccl_detail::checked(status, "ncclCommInitRank");
    }
    ~group() {
      if (comm != nullptr)
        ncclCommDestroy(comm);
      cudaStreamDestroy(stream);
    }
    group(const group&) = delete;
    group& operator=(const group&) = delete;
    nccl_options options;
    cudaStream_t stream = nullptr;
    ncclComm_t comm = nullptr;
  };

  /// Takes the GPU that falls to this process and hands round rank 0's id.
  template <communicator C>
  static ncclUniqueId id_over(C& over) {
    const std::string here = over.host(over.rank());
    int before = 0;
    for (int r = 0; r < over.rank(); ++r)
      before += over.host(r) == here;
    int devices = 0;
    nccl_detail::checked(cudaGetDeviceCount(&devices), "cudaGetDeviceCount");
    require<state_error>(before < devices, "nccl_communicator: process ", before + 1, " of ",
                         here, ", which has ", devices,
                         " GPUs; start as many processes as there are GPUs at most");
    nccl_detail::checked(cudaSetDevice(before), "cudaSetDevice");
    ncclUniqueId id{};
    if (over.rank() == 0)
      nccl_detail::checked(ncclGetUniqueId(&id), "ncclGetUniqueId");
    multistage::broadcast(over, std::span(&id, 1));
    return id;
  }
  /// Runs a call on the GPU's copies of what is in the host's memory.
  template <class Call>
  void exchange(const char* what, bytes_to_send from, bytes_to_fill to, Call&& call) {
    using nccl_detail::checked;
    const bool send_direct = nccl_detail::is_on_device(from.data());
    const bool fill_direct = nccl_detail::is_on_device(to.data());
    const nccl_detail::device_bytes out(send_direct ? 0 : from.size());
    const nccl_detail::device_bytes in(fill_direct ? 0 : to.size());
    if (!send_direct && !from.empty())
      checked(cudaMemcpyAsync(out.data(), from.data(), from.size(), cudaMemcpyHostToDevice,
                              group_->stream),
              "cudaMemcpy");
    checked(call(send_direct ? from.data() : out.data(), fill_direct ? to.data() : in.data()),
            what);
    wait(what);
    if (!fill_direct && !to.empty())
      checked(cudaMemcpy(to.data(), in.data(), to.size(), cudaMemcpyDeviceToHost),
              "cudaMemcpy");
  }
  /// Waits for what was put into the stream, with its eyes open.
  void wait(const char* what) {
    const stopwatch begun;
    for (;;) {
      const cudaError_t status = cudaStreamQuery(group_->stream);
      if (status == cudaSuccess)
        return;
      if (status != cudaErrorNotReady)
        nccl_detail::checked(status, what);
      ncclResult_t said = ncclSuccess;
      nccl_detail::checked(ncclCommGetAsyncError(group_->comm, &said), what);
      const double waited = begun.seconds();
      if (said != ncclSuccess && said != ncclInProgress)
        give_up(what, waited, ncclGetErrorString(said));
      if (waited > group_->options.timeout_seconds)
        give_up(what, waited, "another process does not come");
      if (waited > 1e-3)
        std::this_thread::sleep_for(std::chrono::microseconds(50));
    }
  }
  MULTISTAGE_COLD [[noreturn]] void give_up(const char* what, double waited, const char* why) {
    ncclCommAbort(group_->comm);
    group_->comm = nullptr;
    fail<communication_error>("rank ", rank(), " (", host(rank()), ") waited for ", waited,
                              " s in ", what, " over NCCL: ", why,
                              "; see what the others said. All stop; go on from the last "
                              "checkpoint");
  }

  std::shared_ptr<group> group_;
};
static_assert(communicator<nccl_communicator>);

/// The processes that RANK, WORLD_SIZE and LOCAL_RANK speak of (torchrun's variables), with the
/// GPU of that local rank. @param file that all of them can read and write, new for each run:
/// rank 0 writes its id there, and takes it away when all have come. The run's id and the
/// number of its restart, where torchrun says them, are added to its name.
/// @throws state_error without these variables, communication_error
MULTISTAGE_COLD inline nccl_communicator nccl_from_environment(
    std::string file,
    const nccl_options& options = {}) {
  const auto number = [](const char* name) {
    const char* text = std::getenv(name);
    require<state_error>(text != nullptr, "nccl_from_environment: the environment has no ",
                         name,
                         "; start the program by torchrun, or set RANK, WORLD_SIZE and "
                         "LOCAL_RANK for each process");
    return std::atoi(text);
  };
  const int rank = number("RANK");
  const int size = number("WORLD_SIZE");
  nccl_detail::checked(cudaSetDevice(number("LOCAL_RANK")), "cudaSetDevice");
  for (const char* name : {"TORCHELASTIC_RUN_ID", "TORCHELASTIC_RESTART_COUNT"})
    if (const char* text = std::getenv(name))
      file += std::string("-") + text;
  ncclUniqueId id{};
  if (rank == 0) {
    nccl_detail::checked(ncclGetUniqueId(&id), "ncclGetUniqueId");
    std::ofstream(file + ".part", std::ios::binary)
        .write(reinterpret_cast<const char*>(&id), sizeof id);
    std::error_code problem;
    std::filesystem::rename(file + ".part", file, problem);
    require<file_error>(!problem, file, ": rank 0's id cannot be written: ", problem.message());
  }
  const stopwatch begun;
  while (rank != 0) {
    std::ifstream in(file, std::ios::binary);
    if (in.read(reinterpret_cast<char*>(&id), sizeof id))
      break;
    const double waited = begun.seconds();
    require<communication_error>(
        waited < options.timeout_seconds, file, ": rank ", rank, " waited for ", waited,
        " s for rank 0's id; is the path one that all machines share?");
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
  }
  nccl_communicator group(id, rank, size, options);
  if (rank == 0)
    std::filesystem::remove(file);
  return group;
}

}  // namespace multistage

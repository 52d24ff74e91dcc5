// Any bytes as an npy array, an npz archive, a gzip file, an IDX file or CIFAR-10's records,
// and as images of each.
#include <multistage/io/dataset.hpp>

namespace ms = multistage;

namespace {
template <class F>
void try_to(const F& f) {
  try {
    f();
  } catch (const ms::error&) {
  }
}
}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const unsigned char* data, std::size_t size) {
  const std::vector<unsigned char> bytes(data, data + size);
  try_to([&] { ms::io::images_from(ms::io::parse_npy("fuzz", bytes), "fuzz"); });
  try_to([&] { ms::io::images_from(ms::io::parse_npz("fuzz", bytes), "fuzz"); });
  try_to([&] { ms::io::parse_npz("fuzz", bytes, "images"); });
  try_to([&] { ms::io::parse_idx("fuzz", bytes); });
  try_to([&] { ms::io::parse_cifar10("fuzz", bytes); });
  try_to([&] {
    ms::io::parse_idx("fuzz", ms::io::gunzip("fuzz", bytes, std::uint64_t{1} << 22));
  });
  return 0;
}

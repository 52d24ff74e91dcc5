// Any bytes as an npy array, an npz archive, a gzip file, an IDX file or CIFAR-10's records,
// and as images of each; and as the index of a data set in shards.
#include <cstdlib>
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

/// What is said of the files must hold together where the index was accepted.
void check_index(const ms::io::shard_index& index) {
  const ms::index_t last = index.shard_count() - 1;
  if (last < 0 || ms::index_t(index.shard_fingerprints.size()) != last + 1)
    std::abort();
  const ms::index_t images = last * index.images_per_shard + index.images_of(last);
  if (images != index.extents.rows || index.image_bytes() == 0)
    std::abort();
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
  try_to([&] {
    const std::string_view text(reinterpret_cast<const char*>(data), size);
    check_index(ms::io::parse_shard_index(text, "fuzz"));
  });
  return 0;
}

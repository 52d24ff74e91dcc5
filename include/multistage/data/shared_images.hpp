// Data sets of several processes: one's own rows of a set that all can open, and a set that one
// process holds on all of them.
//
//   const image_source mine = own_rows(io::open_images("icons-32"), world);
//   const image_source all = broadcast_images(world, here, 0);  // `here` is read on rank 0
#pragma once
#include <algorithm>
#include <memory>

#include "../distributed/process_group.hpp"
#include "../distributed/together.hpp"
#include "image_source.hpp"

namespace multistage {

/// This process's share of the rows of a set, as a set of its own; of one process, all of them.
MULTISTAGE_COLD inline image_source own_rows(const image_source& images,
                                             const process_group& group) {
  if (group.size() == 1)
    return images;
  const index_range own = share_of(images.extents.rows, group.rank(), group.size());
  return images.part(own.begin, own.end);
}

namespace detail {

/// Values of the root's on all processes, whatever their number there.
template <class T>
std::vector<T> from_root(process_group& group, std::vector<T> values, int root) {
  std::size_t count = values.size();
  broadcast(group, std::span(&count, 1), root);
  values.resize(count);
  broadcast(group, std::span(values), root);
  return values;
}
/// All of a set's rows by one of its readers; nothing where it has none.
template <class T>
std::vector<T> all_rows(const row_reader<T>& read, index_t rows, index_t values) {
  std::vector<index_t> numbers(static_cast<std::size_t>(read ? rows : 0));
  std::iota(numbers.begin(), numbers.end(), index_t{0});
  std::vector<T> all(numbers.size() * static_cast<std::size_t>(values));
  if (read)
    read(numbers, all.data());
  return all;
}
/// A reader of rows that are in memory; nothing where there are none.
template <class T>
row_reader<T> reader_of(std::vector<T> held, const shape& extents, index_t values) {
  if (held.empty())
    return {};
  const auto kept = std::make_shared<const std::vector<T>>(std::move(held));
  return by_blocks<T>(extents, values, [kept, values](index_t first, index_t n, T* to) {
    std::copy_n(kept->begin() + first * values, n * values, to);
  });
}

}  // namespace detail

/// The root's set on all processes, each of which holds it in memory: bytes where they are
/// bytes, labels and names, contexts. For sets that only one of them can read and that are
/// small enough; else each opens the same files and reads the rows that it needs.
/// @param images the root's; the others' do not matter
/// @throws what the set's readers throw on the root, on the others its echo
MULTISTAGE_COLD inline image_source broadcast_images(process_group group,
                                                     const image_source& images,
                                                     int root = 0) {
  if (group.size() == 1)
    return images;
  image_source all = group.rank() == root ? images : image_source();
  broadcast(group, std::span(&all.extents, 1), root);
  broadcast(group, std::span(&all.class_count, 1), root);
  broadcast(group, std::span(&all.kind, 1), root);
  broadcast(group, std::span(&all.finite, 1), root);
  const index_t rows = all.extents.rows;
  const index_t size = all.extents.row_size();
  std::vector<unsigned char> bytes;
  std::vector<float> values;
  std::vector<int> labels;
  together(group, [&] {
    bytes = detail::all_rows(all.read_bytes, rows, size);
    if (!all.read_bytes)
      values = detail::all_rows(all.read, rows, size);
    labels = detail::all_rows(all.read_labels, rows, 1);
  });
  bytes = detail::from_root(group, std::move(bytes), root);
  values = detail::from_root(group, std::move(values), root);
  labels = detail::from_root(group, std::move(labels), root);
  all.null_context = detail::from_root(group, std::move(all.null_context), root);
  std::string names;
  for (const std::string& name : all.class_names)
    names += name + '\0';
  names = all_gather(group, names)[std::size_t(root)];
  all.class_names.clear();
  for (std::size_t at = 0; at < names.size(); at = names.find('\0', at) + 1)
    all.class_names.push_back(names.substr(at, names.find('\0', at) - at));
  all.fingerprint = all_gather(group, all.fingerprint)[std::size_t(root)];
  bool has_context = all.context != nullptr;
  broadcast(group, std::span(&has_context, 1), root);
  if (has_context)
    all.context = std::make_shared<const image_source>(
        broadcast_images(group, all.context ? *all.context : image_source(), root));

  all.read_labels = detail::reader_of(std::move(labels), all.extents, 1);
  if (bytes.empty()) {
    all.read = detail::reader_of(std::move(values), all.extents, size);
    return all;
  }
  const image_source held = image_source::of_bytes(
      all.extents, detail::reader_of(std::move(bytes), all.extents, size));
  all.read = held.read;
  all.read_bytes = held.read_bytes;
  return all;
}

}  // namespace multistage

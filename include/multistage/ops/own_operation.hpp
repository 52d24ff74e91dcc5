// An operation of the user's own, defined outside the library, in a network beside ours. It is
// a struct like those of this folder (operation.hpp) that also says where it runs:
//   struct doubled {
//     using backends = ms::ops::backend_list<ms::cpu, ms::eigen>;
//     ...
//   };
//   feature y = builder.apply(doubled{}, {x});
// A network holds it as its bytes and a table of functions, one for each backend and scalar.
#pragma once
#include <algorithm>
#include <bit>
#include <cstddef>

#include "operation.hpp"

namespace multistage::ops {

/// The backends on which an operation of one's own runs.
template <class... Backends>
struct backend_list {};

namespace detail {

/// Its address tells one backend and scalar from others.
template <class Backend, class T>
inline constexpr char run_key = 0;

/// Forward and backward of an operation on one backend and scalar; the pointers are its bytes,
/// the backend and the pass.
struct own_run {
  const char* key = nullptr;
  void (*forward)(const std::byte*, void*, const void*) = nullptr;
  void (*backward)(const std::byte*, void*, const void*) = nullptr;
};

template <class Op>
Op from_bytes(const std::byte* bytes) {
  std::array<std::byte, sizeof(Op)> own;
  std::copy_n(bytes, sizeof(Op), own.data());
  return std::bit_cast<Op>(own);
}

template <class Op, class Backend, class T>
constexpr own_run own_run_of() {
  if constexpr (!supports<Backend, Op::needs, T>)
    return {};
  else
    return {&run_key<Backend, T>,
            [](const std::byte* op, void* b, const void* pass) {
              from_bytes<Op>(op).forward(*static_cast<Backend*>(b),
                                         *static_cast<const forward_pass<T>*>(pass));
            },
            [](const std::byte* op, void* b, const void* pass) {
              from_bytes<Op>(op).backward(*static_cast<Backend*>(b),
                                          *static_cast<const backward_pass<T>*>(pass));
            }};
}

template <class Op, class... Backends>
constexpr auto own_runs_of(backend_list<Backends...>) {
  return std::array{own_run_of<Op, Backends, float>()...,
                    own_run_of<Op, Backends, double>()...};
}

/// What a network knows of an operation of one's own.
struct own_table {
  const char* name;
  operand_names operands;
  description (*describe)(const std::byte*, const operand_list&);
  const own_run* runs;
  std::size_t count;
};
template <class Op>
inline constexpr auto own_runs = own_runs_of<Op>(typename Op::backends{});
template <class Op>
inline constexpr own_table own_table_of{
    Op::name, Op::operands,
    [](const std::byte* op, const operand_list& in) { return from_bytes<Op>(op).describe(in); },
    own_runs<Op>.data(), own_runs<Op>.size()};

}  // namespace detail

/// Whether a struct is an operation of one's own: it says where it runs and what it is, and is
/// no more than numbers.
template <class Op>
concept own = std::is_trivially_copyable_v<Op> && requires(const Op op, const operand_list in) {
  typename Op::backends;
  { Op::name } -> std::convertible_to<const char*>;
  { op.describe(in) } -> std::same_as<description>;
};

/// @see the file's head.
class own_operation {
 public:
  /// That the attributes of an operation may take, since nodes hold them by value.
  static constexpr std::size_t most_bytes = 64;

  constexpr own_operation() = default;
  /// Keeps a copy of the operation's attributes by their bytes, and its functions for all its
  /// backends.
  template <own Op>
  constexpr explicit own_operation(const Op& op)
      : table_(&detail::own_table_of<Op>) {
    static_assert(sizeof(Op) <= most_bytes,
                  "multistage: the attributes of an operation of one's own take at most 64 "
                  "bytes: keep large things in parameters or operands");
    const auto own_bytes = std::bit_cast<std::array<std::byte, sizeof(Op)>>(op);
    for (std::size_t i = 0; i < sizeof(Op); ++i)
      bytes_[i] = own_bytes[i];
  }

  /// The operation's own name.
  const char* called() const {
    return table_->name;
  }
  /// What messages call its operands.
  const operand_names& operands() const {
    return table_->operands;
  }
  /// Extents of the result, checks, cost and memory on these operands.
  description describe(const operand_list& in) const {
    return table_->describe(bytes_.data(), in);
  }
  /// Whether it runs on this backend and scalar.
  template <class Backend, class T>
  bool runs_on() const {
    return find<Backend, T>() != nullptr;
  }
  /// Writes the result, and the statistics that backward reads.
  template <class Backend, class T>
  void forward(Backend& b, const forward_pass<T>& p) const {
    find<Backend, T>()->forward(bytes_.data(), &b, &p);
  }
  /// Writes or adds the gradients that are wanted, from the result's.
  template <class Backend, class T>
  void backward(Backend& b, const backward_pass<T>& p) const {
    find<Backend, T>()->backward(bytes_.data(), &b, &p);
  }

 private:
  template <class Backend, class T>
  const detail::own_run* find() const {
    for (std::size_t i = 0; i < table_->count; ++i)
      if (table_->runs[i].key == &detail::run_key<Backend, T>)
        return &table_->runs[i];
    return nullptr;
  }

  const detail::own_table* table_ = nullptr;
  std::array<std::byte, most_bytes> bytes_{};
};

}  // namespace multistage::ops

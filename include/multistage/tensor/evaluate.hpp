// How an expression becomes elements: one pass over memory (loop.hpp), whatever the backend.
// Before it, what would be read after it was written is found, and copied where it must be:
//
//   x = x + 1.0f;             // each element is read before it is written: in place
//   x = x.permute<1, 0>();    // elements change places: through memory of its own
//
// Then what tensors ask for by name is here: assignment, copies, the way to other backends.
#pragma once
#include <functional>

#include "functions.hpp"
#include "loop.hpp"

namespace multistage {
namespace lazy {

/// The addresses that the elements of a view take: [first, behind).
template <class T, class E>
std::pair<const void*, const void*> addresses(const view<T, E>& v) {
  index_t low = 0;
  index_t high = 0;
  for (int k = 0; k < E::rank(); ++k) {
    if (v.extents[k] == 0)
      return {nullptr, nullptr};
    const index_t reach = (v.extents[k] - 1) * v.strides[k];
    (reach < 0 ? low : high) += reach;
  }
  return {v.data + low, v.data + high + 1};
}
/// Whether writing to `to` may change what is still to be read through `from`: they meet, and
/// not element by element.
template <class T, class E, class U, class F>
bool interferes(const view<T, E>& to, const view<const U, F>& from) {
  const auto [first, behind] = addresses(to);
  const auto [first_read, behind_read] = addresses(from);
  const std::less<const void*> before;
  if (!before(first, behind_read) || !before(first_read, behind))
    return false;
  // Both begin at one address with elements of one size: then equal strides mean element by
  // element.
  const void* const written = to.data;
  const void* const read = from.data;
  if (written != read || sizeof(T) != sizeof(U))
    return true;
  const auto strides = multistage::detail::spread_strides(from, to.extents);
  for (int k = 0; k < E::rank(); ++k) {
    const bool moves = to.extents[k] != 1;
    if (moves && strides[k] != to.strides[k])
      return true;
  }
  return false;
}

/// to = node, whose extents spread to those of `to`; nothing is read after it is written.
template <class Backend, class T, class E, class Node>
void write(const Backend& b, const view<T, E>& to, const Node& node) {
  constexpr int axes = E::rank() > 0 ? E::rank() : 1;  // a single element is one axis of one
  const auto padded = [&]<int N>(const index_list<N>& strides) {
    index_list<axes> all;
    for (int k = 0; k < N; ++k)
      all[k] = strides[k];
    return all;
  };
  // Each leaf becomes a pointer that walks along the axes of `to`.
  const auto along = [&]<class U, class F, class B>(const leaf<U, F, B>& l) {
    const auto strides = multistage::detail::spread_strides(l.elements, to.extents);
    return strided<U, axes>{l.elements.data, padded(strides)};
  };
  auto tree = with_leaves(node, along);
  assignment<decltype(tree), T, axes> a{{}, tree, to.data, padded(to.strides)};
  for (int k = 0; k < axes; ++k)
    a.axes.extents[k] = k < E::rank() ? to.extents[k] : 1;
  a.simplify();
  a.run(b);
}

/// to = node, whatever they share. @throws shape_error
template <class Backend, class T, class E, class Node>
void assign(const Backend& b, const view<T, E>& to, const Node& node) {
  static_assert(!std::is_const_v<T>,
                "multistage: this view is const; its elements cannot be assigned to");
  using from = typename Node::extents_type;
  using backend = typename Node::backend_type;
  static_assert(std::is_same_v<backend, Backend> || std::is_void_v<backend>,
                "multistage: an expression is assigned to a tensor of its own backend; bring "
                "it there by .to(backend)");
  static_assert(from::rank() <= E::rank(),
                "multistage: the expression has more axes than what it is assigned to");
  using together = typename detail::common_extents<from, E>::type;  // says where they do not meet
  static_assert(together::rank() == E::rank());
  const from extents = node.extents();
  require<shape_error>(multistage::detail::spreads(extents, to.extents),
                       "assignment: an expression of extents ", extents, " does not spread to ",
                       to.extents, "; seen from the last axis, extents must be equal or 1");
  for (int k = 0; k < E::rank(); ++k) {
    const bool repeated = to.strides[k] == 0 && to.extents[k] > 1;
    require<shape_error>(!repeated, "assignment: axis ", k, " of ", to.extents,
                         " is one element repeated; it cannot be assigned to");
  }
  bool meets = false;
  for_each_leaf(node, [&](const auto& l) { meets = meets || interferes(to, l.elements); });
  if (!meets)
    return write(b, to, node);
  basic_tensor<T, E, Backend> first(b, to.extents);
  write(b, first.view(), node);
  write(b, to, leaf<T, E, Backend>(first.cview(), b));
  b.synchronize();  // before `first` goes
}

}  // namespace lazy

/// An expression computed: a tensor of its values' type on its backend.
template <operand X>
auto eval(X&& x) {
  const auto node = lazy::node_of(std::forward<X>(x));
  using type = std::remove_const_t<decltype(node)>;
  using value = typename type::value_type;
  using extents = typename type::extents_type;
  using backend = typename type::backend_type;
  basic_tensor<value, extents, backend> y(node.backend(), node.extents());
  lazy::write(y.backend(), y.view(), node);
  return y;
}

// What core/tensor.hpp's classes call.
/// What assigning to a view does. @throws shape_error
template <class T, class E, class B, class X>
void tensor_assign(const tensor_view<T, E, B>& to, const X& x) {
  lazy::assign(to.backend(), to.view(), lazy::node_of(x));
}
/// What making a tensor from x does: memory of its own, of the extents and on the backend of x.
/// @throws shape_error where the type of `to` knows other extents
template <class T, class E, class B, class X>
void tensor_construct(basic_tensor<T, E, B>& to, const X& x) {
  const auto node = lazy::node_of(x);
  using type = std::remove_const_t<decltype(node)>;
  static_assert(type::extents_type::rank() == E::rank(),
                "multistage: the tensor and the expression differ in their number of axes");
  basic_tensor<T, E, B> made(node.backend(), convert_extents<E>(node.extents()));
  lazy::assign(made.backend(), made.view(), node);
  to = std::move(made);
}
/// What assigning to a tensor does: its memory is used again where the extents are the same, so
/// that a loop over steps allocates nothing.
template <class T, class E, class B, class X>
void tensor_take(basic_tensor<T, E, B>& to, const X& x) {
  const auto node = lazy::node_of(x);
  if (to.size() > 0 && same_extents(to.extents(), node.extents()))
    lazy::assign(to.backend(), to.view(), node);
  else
    tensor_construct(to, x);
}
/// The value everywhere; of any strides.
template <tensor_like X, class T>
void tensor_fill(X&& to, T value) {
  lazy::assign(to.backend(), to.view(), lazy::constant<T>(value));
}
/// The elements in memory of their own, one after the other; bytes are copied where they lie so
/// already.
template <tensor_like X>
auto tensor_copy(const X& x) {
  using value = typename X::value_type;
  using extents = typename X::extents_type;
  using backend = typename X::backend_type;
  basic_tensor<value, extents, backend> y(x.backend(), x.extents());
  if (!x.view().contiguous())
    lazy::write(y.backend(), y.view(), lazy::node_of(x));
  else if (x.size() > 0)
    x.backend().copy(x.data(), y.data(), x.size());
  return y;
}
/// The elements in a std::vector, the last axis fastest.
template <tensor_like X>
auto tensor_to_host(const X& x) {
  if (x.view().contiguous())
    return detail::downloaded(x);
  return detail::downloaded(tensor_copy(x));
}
/// The elements in the memory of another backend. Between two devices they go through the host.
template <tensor_like X, class Backend>
auto tensor_to(const X& x, const Backend& backend) {
  using T = typename X::value_type;
  using from = typename X::backend_type;
  basic_tensor<T, typename X::extents_type, Backend> y(backend, x.extents());
  if (x.size() == 0)
    return y;
  if (!x.view().contiguous())
    return tensor_to(tensor_copy(x), backend);
  const index_t count = x.size();
  if constexpr (from::on_host) {
    y.backend().upload(x.data(), y.data(), count);
  } else if constexpr (Backend::on_host) {
    x.backend().download(x.data(), y.data(), count);
  } else {
    const auto on_host = std::make_unique<T[]>(std::size_t(count));
    x.backend().download(x.data(), on_host.get(), count);
    y.backend().upload(on_host.get(), y.data(), count);
  }
  return y;
}

/// Of this header alone.
#define MULTISTAGE_OPERATOR(symbol, name)                                   \
  template <tensor_like X, class Y>                                         \
  requires operands<X, Y> X && operator symbol(X&& x, const Y& y) {         \
    lazy::assign(x.backend(), x.view(), map(lazy::function::name(), x, y)); \
    return std::forward<X>(x);                                              \
  }
/// Adds to each element; x spreads where it has one element along an axis. @throws shape_error
MULTISTAGE_OPERATOR(+=, add)
/// Subtracts from each element. @throws shape_error
MULTISTAGE_OPERATOR(-=, subtract)
/// Multiplies each element. @throws shape_error
MULTISTAGE_OPERATOR(*=, multiply)
/// Divides each element. @throws shape_error
MULTISTAGE_OPERATOR(/=, divide)
#undef MULTISTAGE_OPERATOR

}  // namespace multistage

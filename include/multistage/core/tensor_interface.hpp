// What a tensor is to the rest of the library (concepts), and what tensors and views of them
// can be asked for alike: views, one element, copies. Each way of seeing is written once, in
// slicing.hpp; here it gets the backend, and what keeps the elements alive.
#pragma once
#include <memory>
#include <span>
#include <utility>
#include <vector>

#include "slicing.hpp"

namespace multistage {

/// What tensors, views of them, and expressions of both are known by.
struct tensor_base {};
/// The mark of expressions that are not computed yet.
struct expression_base {};
/// A tensor or a view that knows its backend.
template <class X>
concept tensor_like = std::is_base_of_v<tensor_base, std::remove_cvref_t<X>>;
/// What has not been computed yet.
template <class X>
concept expression = std::is_base_of_v<expression_base, std::remove_cvref_t<X>>;
/// What can stand in an expression.
template <class X>
concept operand = tensor_like<X> || expression<X>;

/// The backend of tensors that name none: `default_backend<T>::type`, where T is any type.
/// Defined beside the backend.
template <class T>
struct default_backend;

// Defined below; the common interface returns it.
template <class T, class Extents, class Backend>
class tensor_view;
// Owns what it shows.
template <class T, class Extents, class Backend>
class basic_tensor;

namespace detail {
// Told by the name alone: the interface asks while the tensor is incomplete, and compilers
// remember the answer.
template <class X>
inline constexpr bool owns_elements = false;
template <class T, class Extents, class Backend>
inline constexpr bool owns_elements<basic_tensor<T, Extents, Backend>> = true;
}  // namespace detail

/// A tensor that has elements of its own.
template <class X>
concept owning = detail::owns_elements<std::remove_cv_t<X>>;

namespace detail {
/// Elements that lie one after the other, on the host.
template <class X>
auto downloaded(const X& x) {
  using T = typename X::value_type;
  std::vector<T> host(static_cast<std::size_t>(x.size()));
  if constexpr (!std::is_same_v<T, bool>) {
    if (x.size() > 0)
      x.backend().download(x.data(), host.data(), x.size());
  } else {  // vector<bool> has no memory of bools
    const auto bytes = std::make_unique<bool[]>(host.size());
    if (x.size() > 0)
      x.backend().download(x.data(), bytes.get(), x.size());
    host.assign(bytes.get(), bytes.get() + host.size());
  }
  return host;
}
}  // namespace detail

/// What tensors and views of them have in common; views of a const tensor are const.
template <class Self>
class tensor_interface {
 public:
  /// Each of these exists three times: for tensors, for const ones, and for those without a
  /// name, whose views keep them.
#define MULTISTAGE_VIEW(head, name_and_parameters, ...)      \
  head auto name_and_parameters& {                           \
    const auto v = self().view();                            \
    return bound(__VA_ARGS__);                               \
  }                                                          \
  head auto name_and_parameters const& {                     \
    const auto v = self().view();                            \
    return bound(__VA_ARGS__);                               \
  }                                                          \
  head auto name_and_parameters&& {                          \
    return kept([&](const auto& v) { return __VA_ARGS__; }); \
  }
  /// Every step-th place of [first, last) of one axis: y.slice<1>(0, 4). @throws shape_error
  MULTISTAGE_VIEW(template <int Axis>,
                  slice(index_t first, index_t last, index_t step = 1),
                  detail::slice<Axis>(v, first, last, step))
  /// One place of an axis, which goes: an image of a batch is y.at<0>(3). @throws shape_error
  MULTISTAGE_VIEW(template <int Axis>, at(index_t place), detail::at<Axis>(v, place))
  /// A new axis of one element before `Axis`.
  MULTISTAGE_VIEW(template <int Axis>, expand(), detail::expand<Axis>(v))
  /// The axes in another order: NHWC becomes NCHW by permute<0, 3, 1, 2>().
  MULTISTAGE_VIEW(template <int... Axes>, permute(), detail::permute<Axes...>(v))
  /// The axes in the opposite order.
  MULTISTAGE_VIEW(, transpose(), transposed(v))
  /// One axis from its end.
  MULTISTAGE_VIEW(template <int Axis>, reverse(), detail::reverse<Axis>(v))
  /// Axes of one element, and new ones in front, repeated to these extents. @throws shape_error
  MULTISTAGE_VIEW(template <std::size_t N>,
                  broadcast(const index_t (&extents)[N]),
                  detail::broadcast(v, make_extents<rank<int(N)>>(list_of(extents))))
  /// The same to extents of any type. @throws shape_error
  MULTISTAGE_VIEW(template <extents_like E>,
                  broadcast(const E& extents),
                  detail::broadcast(v, extents))
  /// The same elements in the same order with other extents; one of them may be `dynamic`: what
  /// is left. @throws shape_error where the elements do not lie so that strides say it
  MULTISTAGE_VIEW(template <std::size_t N>,
                  reshape(const index_t (&extents)[N]),
                  reshaped(v, list_of(extents)))
  /// The same to extents of any type. @throws shape_error
  MULTISTAGE_VIEW(template <extents_like E>,
                  reshape(const E& extents),
                  detail::reshape(v, extents))
#undef MULTISTAGE_VIEW

  /// One element: a reference where the backend's memory is the host's, a copy otherwise.
  /// @throws value_error outside the extents
  template <std::convertible_to<index_t>... Places>
  decltype(auto) operator()(Places... places) {
    return element(self().view(), places...);
  }
  /// One element of what is const: to be read only. @throws value_error outside the extents
  template <std::convertible_to<index_t>... Places>
  decltype(auto) operator()(Places... places) const {
    return element(self().view(), places...);
  }

  /// A tensor of its own with these elements. @see tensor/evaluate.hpp
  auto copy() const {
    return tensor_copy(self());
  }
  /// The same on another backend.
  template <class Other>
  auto to(const Other& backend) const {
    return tensor_to(self(), backend);
  }
  /// A copy on the host, in the order of the axes.
  auto to_host() const {
    if constexpr (owning<Self>)
      return detail::downloaded(self());
    else
      return tensor_to_host(self());
  }
  /// The elements as a span. @throws shape_error where they do not lie one after the other
  auto span() & {
    return span_of(self().view());
  }
  /// The elements of a const tensor, to be read only. @throws shape_error as above
  auto span() const& {
    return span_of(self().view());
  }
  /// The same of a view without a name, whose elements somebody else keeps.
  auto span() && requires(!owning<Self>) {
    return span_of(self().view());
  }

 private:
  /// The tensor or view that has these members.
  Self& self() {
    return static_cast<Self&>(*this);
  }
  const Self& self() const {
    return static_cast<const Self&>(*this);
  }
  /// A view with the backend of this one, and with its owner.
  template <class T, class E>
  auto bound(const view<T, E>& v) const {
    using viewed = tensor_view<T, E, typename Self::backend_type>;
    if constexpr (owning<Self>)
      return viewed(self().backend(), v);
    else
      return viewed(self().backend(), v, self().owner());
  }
  /// The same of a tensor without a name, which goes on living in the view.
  template <class F>
  auto kept(F&& f) {
    if constexpr (owning<Self>) {
      const auto owner = std::make_shared<Self>(std::move(self()));
      const auto v = f(owner->view());
      using view_type = std::remove_const_t<decltype(v)>;
      return tensor_view<typename view_type::element_type, typename view_type::extents_type,
                         typename Self::backend_type>(owner->backend(), v, owner);
    } else {
      return bound(f(self().view()));
    }
  }
  /// All axes in the opposite order.
  template <class T, class E>
  static auto transposed(const view<T, E>& v) {
    return detail::transpose(v, std::make_integer_sequence<int, E::rank()>());
  }
  template <std::size_t N>
  static index_list<int(N)> list_of(const index_t (&extents)[N]) {
    index_list<int(N)> list;
    for (int k = 0; k < int(N); ++k)
      list[k] = extents[k];
    return list;
  }
  /// Fills the extent that is left open.
  template <class T, class E, int N>
  static auto reshaped(const view<T, E>& v, index_list<N> list) {
    index_t known = 1;
    int open = -1;
    for (int k = 0; k < N; ++k) {
      if (list[k] != dynamic) {
        require<shape_error>(list[k] >= 0, "reshape: extent ", k, " is ", list[k]);
        known *= list[k];
        continue;
      }
      require<shape_error>(open < 0, "reshape: more than one extent is left open");
      open = k;
    }
    if (open >= 0) {
      require<shape_error>(known > 0 && v.extents.size() % known == 0, "reshape: ", v.extents,
                           " has ", v.extents.size(), " elements, which ", known,
                           " does not divide");
      list[open] = v.extents.size() / known;
    }
    return detail::reshape(v, make_extents<rank<N>>(list));
  }
  /// The element at a place that is looked at, axis by axis.
  template <class T, class E, class... Places>
  decltype(auto) element(const view<T, E>& v, Places... places) const {
    static_assert(sizeof...(Places) == std::size_t(E::rank()),
                  "multistage: an element is named by one index an axis");
    const index_t place[sizeof...(Places) + 1] = {index_t(places)..., 0};
    index_t offset = 0;
    for (int k = 0; k < int(sizeof...(Places)); ++k) {
      if (place[k] < 0 || place[k] >= v.extents[k])
        fail<value_error>("tensor: index ", place[k], " of axis ", k, " is outside ",
                          v.extents);
      offset += place[k] * v.strides[k];
    }
    if constexpr (Self::backend_type::on_host) {
      return v.data[offset];
    } else {
      std::remove_const_t<T> value;
      self().backend().download(static_cast<const std::remove_const_t<T>*>(v.data + offset),
                                &value, 1);
      return value;
    }
  }
  /// Elements that lie one after the other, as std::span.
  template <class T, class E>
  static std::span<T> span_of(const view<T, E>& v) {
    static_assert(Self::backend_type::on_host,
                  "multistage: a span needs memory of the host; to_host() or "
                  ".to(multistage::cpu()) copies");
    require<shape_error>(v.contiguous(), "span: the elements of this view ", v.extents,
                         " do not lie one after the other; copy() it first");
    return {v.data, std::size_t(v.extents.size())};
  }
};

}  // namespace multistage

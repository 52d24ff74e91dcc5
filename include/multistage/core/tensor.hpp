// Tensors: elements of one type in the memory of a backend, with any number of axes. `tensor`
// owns them; `tensor_view` shows some of them through strides, without copying. Both are
// computed with as one writes it down (tensor/expression.hpp); what kernels get is a `view`.
//
//   tensor<float> x({2, 8, 8, 3});            // four axes, zeros, on the default backend
//   auto patch = x.slice<1>(0, 4);            // a tensor_view: no copy
//   patch = 1;                                // changes x
//   auto planar = x.permute<0, 3, 1, 2>();    // NHWC seen as NCHW
//   std::vector<float> host = x.to_host();    // a copy, in the order of the axes
//
// A view of a tensor that has a name must not outlive it; one of a temporary keeps it alive.
// Tensors move and are never copied unasked: copy() says so. The functions tensor_... that
// this header calls are defined in tensor/evaluate.hpp, found when they are used.
#pragma once
#include <initializer_list>
#include <optional>

#include "tensor_interface.hpp"

namespace multistage {

/// Elements of a tensor, or of memory of yours, seen through strides. Copying it copies no
/// element; assigning to it assigns to the elements it shows, which must live as long as it is
/// used.
template <class T, class Extents, class Backend>
class tensor_view : public tensor_base,
                    public tensor_interface<tensor_view<T, Extents, Backend>> {
 public:
  using element_type = T;                     ///< const for a view to be read only
  using value_type = std::remove_const_t<T>;  ///< what an element is, without const
  using extents_type = Extents;               ///< a `shape` or `extents<...>`
  using backend_type = Backend;               ///< whose memory it is: `cpu`, `cuda`, ...

  /// @param owner what keeps the elements alive, where nothing else does
  tensor_view(const Backend& backend,
              const multistage::view<T, Extents>& v,
              std::shared_ptr<const void> owner = nullptr)
      : backend_(backend),
        view_(v),
        owner_(std::move(owner)) {}
  /// A second view of the same elements.
  tensor_view(const tensor_view&) = default;

  /// The element at place 0 along every axis: in the backend's memory, so not always the
  /// host's.
  T* data() const {
    return view_.data;
  }
  /// How many elements it shows along each axis.
  const Extents& extents() const {
    return view_.extents;
  }
  /// How many elements of memory lie between neighbours along each axis; 0 repeats, below 0
  /// goes backwards.
  const index_list<Extents::rank()>& strides() const {
    return view_.strides;
  }
  /// Elements in all.
  index_t size() const {
    return view_.extents.size();
  }
  /// Where the elements are and who computes with them.
  const Backend& backend() const {
    return backend_;
  }
  /// What kernels take: the pointer, the extents and the strides without a backend.
  const multistage::view<T, Extents>& view() const {
    return view_;
  }
  /// The same, to be read only.
  multistage::view<const value_type, Extents> cview() const {
    return view_;
  }
  /// What keeps the elements alive; null where they are somebody else's matter.
  const std::shared_ptr<const void>& owner() const {
    return owner_;
  }
  /// Into a view of as many axes, for what takes one. @throws shape_error where the other type
  /// knows an extent that differs
  template <class U, extents_like E>
  requires std::is_convertible_v<multistage::view<T, Extents>, multistage::view<U, E>>
  operator multistage::view<U, E>() const {
    return view_;
  }

  /// The elements take the values of x, spread where an axis of x has one element. @throws
  /// shape_error
  template <operand X>
  const tensor_view& operator=(const X& x) const {
    tensor_assign(*this, x);
    return *this;
  }
  /// The elements of x are copied, in any order of memory; views of overlapping memory are
  /// right too. @throws shape_error
  const tensor_view& operator=(const tensor_view& x) const {
    tensor_assign(*this, x);
    return *this;
  }
  /// The elements of x are copied; the view itself goes on showing what it showed. @throws
  /// shape_error
  tensor_view& operator=(const tensor_view& x) {
    tensor_assign(*this, x);
    return *this;
  }
  /// Every element takes the value.
  template <class S>
  requires std::is_convertible_v<S, value_type>
  const tensor_view& operator=(const S& value) const {
    tensor_fill(*this, value_type(value));
    return *this;
  }

 private:
  Backend backend_;
  multistage::view<T, Extents> view_;
  std::shared_ptr<const void> owner_;
};

/// An owning tensor of `T` in the memory of `Backend`, its elements one after the other, the
/// last axis fastest. Movable; copies are explicit (`copy`). Written `tensor<float>`,
/// `tensor<float, rank<3>>`, `tensor<float, extents<2, dynamic, 8>, cuda>`; @see tensor
template <class T, class Extents, class Backend>
class basic_tensor : public tensor_base,
                     public tensor_interface<basic_tensor<T, Extents, Backend>> {
  static_assert(std::is_trivially_copyable_v<T> && !std::is_const_v<T>,
                "multistage: elements of a tensor are plain values that are not const: "
                "numbers, bool, or types of as simple a kind");

 public:
  using element_type = T;        ///< what an element is
  using value_type = T;          ///< what an element is read as
  using extents_type = Extents;  ///< a `shape` or `extents<...>`
  using backend_type = Backend;  ///< whose memory it is: `cpu`, `cuda`, ...

  basic_tensor() = default;
  /// Zeros of the given extents. @throws shape_error for an extent below 0
  basic_tensor(Backend backend, const Extents& e)
      : backend_(std::move(backend)),
        extents_(check(e)),
        storage_(backend_->template allocate<T>(e.size())) {}
  /// From host values, the last axis fastest. @throws shape_error when their number differs
  basic_tensor(Backend backend, const Extents& e, std::span<const T> host)
      : basic_tensor(std::move(backend), e) {
    require<shape_error>(index_t(host.size()) == e.size(), "tensor: ", host.size(),
                         " values given for extents ", e, ", which hold ", e.size());
    if (e.size() > 0)
      backend_->upload(host.data(), data(), e.size());
  }
  /// The same on a default backend.
  explicit basic_tensor(const Extents& e)
      : basic_tensor(Backend(), e) {}
  /// Zeros along one axis, on a default backend.
  explicit basic_tensor(index_t size) requires(Extents::rank() == 1)
      : basic_tensor(Backend(), Extents(size)) {}
  /// From host values on a default backend. @throws shape_error when their number differs
  basic_tensor(const Extents& e, std::span<const T> host)
      : basic_tensor(Backend(), e, host) {}
  /// From a list of values on a default backend. @throws shape_error when their number differs
  basic_tensor(const Extents& e, std::initializer_list<T> host)
      : basic_tensor(Backend(), e, {host.begin(), host.size()}) {}
  /// The values of an expression or of another view, on its backend.
  template <operand X>
  requires(!std::is_same_v<X, basic_tensor>) basic_tensor(const X& x) {
    tensor_construct(*this, x);
  }
  /// What is moved from is empty, as if just made.
  basic_tensor(basic_tensor&& from) noexcept
      : backend_(std::exchange(from.backend_, std::nullopt)),
        extents_(from.extents_),
        storage_(std::move(from.storage_)) {}
  /// Takes memory, extents and backend over and leaves `from` empty; views of what was here
  /// before show nothing any more.
  basic_tensor& operator=(basic_tensor&& from) noexcept {
    storage_ = std::move(from.storage_);
    extents_ = from.extents_;
    if (this != &from)
      backend_ = std::exchange(from.backend_, std::nullopt);
    return *this;
  }

  /// The first element, in the backend's memory, so not always the host's.
  T* data() {
    return Backend::pointer(storage_);
  }
  /// The first element, to be read only.
  const T* data() const {
    return Backend::pointer(storage_);
  }
  /// How many elements there are along each axis.
  const Extents& extents() const {
    return extents_;
  }
  /// How far neighbours along each axis lie apart, in elements; the last axis is 1.
  index_list<Extents::rank()> strides() const {
    return packed_strides(extents_);
  }
  /// Elements in all, 0 for an empty tensor.
  index_t size() const {
    return backend_ ? extents_.size() : 0;
  }
  /// @throws value_error for an empty tensor
  const Backend& backend() const {
    require<value_error>(backend_.has_value(),
                         "tensor: this one is empty, with neither extents nor memory: make it "
                         "with extents first");
    return *backend_;
  }
  /// The handle of its backend, for what changes it, such as its streams. @throws value_error
  /// for an empty tensor
  Backend& backend() {
    return const_cast<Backend&>(std::as_const(*this).backend());
  }

  /// What kernels take: the pointer and the extents. It ends with the tensor.
  multistage::view<T, Extents> view() {
    return {data(), extents_};
  }
  /// The same, to be read only.
  multistage::view<const T, Extents> view() const {
    return {data(), extents_};
  }
  /// The same, const whatever this is.
  multistage::view<const T, Extents> cview() const {
    return {data(), extents_};
  }
  /// Into a view of as many axes, for what takes one. @throws shape_error where the other type
  /// knows an extent that differs
  template <class U, extents_like E>
  requires std::is_convertible_v<multistage::view<T, Extents>, multistage::view<U, E>>
  operator multistage::view<U, E>() {
    return view();
  }
  /// The same of a const tensor, to be read only. @throws shape_error
  template <class U, extents_like E>
  requires std::is_convertible_v<multistage::view<const T, Extents>, multistage::view<U, E>>
  operator multistage::view<U, E>() const {
    return view();
  }

  /// The tensor takes the extents and the values of x, which may read the tensor itself.
  template <operand X>
  requires(!std::is_same_v<X, basic_tensor>) basic_tensor& operator=(const X& x) {
    tensor_take(*this, x);
    return *this;
  }
  /// Every element takes the value; the extents stay.
  template <class S>
  requires(std::is_convertible_v<S, T>&& std::is_arithmetic_v<S>) basic_tensor& operator=(
      const S& value) {
    tensor_fill(*this, T(value));
    return *this;
  }

 private:
  /// The extents, if they can be those of a tensor. @throws shape_error
  static const Extents& check(const Extents& e) {
    for (int k = 0; k < Extents::rank(); ++k)
      require<shape_error>(e[k] >= 0, "tensor: extents ", e, " must not be negative");
    require<shape_error>(countable(e), "tensor: extents ", e,
                         " hold more elements than can be counted; make some smaller");
    return e;
  }
  std::optional<Backend> backend_;
  Extents extents_ = make_extents<Extents>(packed_zeros());
  typename Backend::template storage<T> storage_{};

  static index_list<Extents::rank()> packed_zeros() {
    index_list<Extents::rank()> list;
    for (int k = 0; k < Extents::rank(); ++k)
      list[k] = Extents::static_extent(k) == dynamic ? 0 : Extents::static_extent(k);
    return list;
  }
};

namespace detail {
struct none;
template <class T, class A, class B>
struct tensor_of {  // A is a backend: four axes
  static_assert(std::is_same_v<B, none>,
                "multistage: a tensor is tensor<T, Extents, Backend>, or tensor<T, Backend> of "
                "four axes");
  using type = basic_tensor<T, shape, A>;
};
template <class T, extents_like E, class B>
struct tensor_of<T, E, B> {
  using type = basic_tensor<T, E, B>;
};
template <class T, extents_like E>
struct tensor_of<T, E, none> {
  using type = basic_tensor<T, E, typename default_backend<T>::type>;
};
}  // namespace detail

/// The type of a tensor by its element type and, in this order and each with a default, its
/// extents (a `shape`) and its backend (`cpu`): tensor<float>, tensor<float, cuda>,
/// tensor<double, rank<2>>, tensor<float, extents<dynamic, 8>, thrust_host>.
template <class T, class Extents = shape, class Backend = detail::none>
using tensor = typename detail::tensor_of<T, Extents, Backend>::type;

}  // namespace multistage

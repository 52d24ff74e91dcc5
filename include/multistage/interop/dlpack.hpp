// Exchange with NumPy, PyTorch, JAX and others by DLPack (its public ABI, version 0.8:
// https://dmlc.github.io/dlpack): a struct that says where elements lie, how, and who frees
// them. The structs below have the ABI's layout and names of their own, so that they do not
// clash with dlpack.h.
//
//   dlpack::pointer handed = dlpack::give(std::move(x));     // the receiver calls the deleter
//   auto seen = dlpack::take<float, 2>(theirs->tensor);      // a view of their elements
#pragma once
#include <array>
#include <memory>

#include "../core/tensor.hpp"

namespace multistage::dlpack {

/// kDLCPU, kDLCUDA, kDLCUDAHost of the ABI.
enum class device_kind : std::int32_t { cpu = 1, cuda = 2, cuda_host = 3 };
/// kDLInt, kDLUInt, kDLFloat, kDLBfloat, kDLBool of the ABI.
enum class type_code : std::uint8_t {
  integer = 0,
  unsigned_integer = 1,
  floating = 2,
  bfloat = 4,
  boolean = 6
};

/// DLDevice of the ABI: where elements lie.
struct device {
  device_kind kind = device_kind::cpu;  ///< which kind of memory
  std::int32_t number = 0;              ///< which of several GPUs, from 0
};
/// DLDataType of the ABI: what an element is.
struct data_type {
  type_code code = type_code::floating;  ///< kind of number
  std::uint8_t bits = 0;                 ///< of one number: 32 for float
  std::uint16_t lanes = 1;               ///< numbers an element; this library knows 1
  /// The same kind, bits and lanes.
  friend bool operator==(const data_type&, const data_type&) = default;
};
/// DLTensor of the ABI.
struct described {
  void* data = nullptr;             ///< where byte_offset counts from
  dlpack::device device;            ///< whose memory `data` is an address in
  std::int32_t axes = 0;            ///< length of `extents` and `strides`
  dlpack::data_type type;           ///< of every element
  std::int64_t* extents = nullptr;  ///< elements along each axis
  std::int64_t* strides = nullptr;  ///< in elements; null: packed
  std::uint64_t byte_offset = 0;    ///< from `data` to the element at place 0
};
/// DLManagedTensor of the ABI. Who receives it calls deleter(this) when done.
struct managed {
  described tensor;       ///< what is handed over
  void* owner = nullptr;  ///< the giver's own note, not for the receiver
  /// Frees all of it, this struct included; null: nothing to free.
  void (*deleter)(managed*) = nullptr;
};
static_assert(sizeof(void*) != 8 || (sizeof(described) == 48 && sizeof(managed) == 64),
              "the ABI's sizes");

/// The ABI's code of an element type: numbers and bool; a type of one's own specialises it.
template <class T>
struct type_of {
  static_assert(std::is_arithmetic_v<T>,
                "multistage: DLPack has no code for this element type");
  /// The code, with the bits of T and one lane.
  static constexpr data_type value{std::is_same_v<T, bool>       ? type_code::boolean
                                   : std::is_floating_point_v<T> ? type_code::floating
                                   : std::is_unsigned_v<T>       ? type_code::unsigned_integer
                                                                 : type_code::integer,
                                   std::uint8_t(8 * sizeof(T)), 1};
};

namespace detail {
/// What is handed over together: the struct of the ABI, the tensor that owns or views the
/// elements, and the lists that the struct points to.
template <class Tensor>
struct kept {
  managed described_;
  Tensor tensor;
  std::array<std::int64_t, 8> extents{};
  std::array<std::int64_t, 8> strides{};
};
/// Where a backend's memory is.
template <class Backend>
constexpr device_kind kind_of() {
  return Backend::on_host ? device_kind::cpu : device_kind::cuda;
}
/// What a receiver does in the end.
inline void free(managed* m) {
  if (m && m->deleter)
    m->deleter(m);
}
}  // namespace detail

/// Owns what a caller was handed, until release().
using pointer = std::unique_ptr<managed, void (*)(managed*)>;

/// Hands a tensor over: it lives until the receiver calls the deleter. A view is handed over
/// without its elements, which must live as long. For Python give release() to
/// PyCapsule_New(..., "dltensor", ...).
template <class Tensor>
requires(tensor_like<Tensor> && !std::is_lvalue_reference_v<Tensor>) pointer give(Tensor&& x) {
  using T = typename Tensor::value_type;
  constexpr int axes = Tensor::extents_type::rank();
  static_assert(axes <= 8, "multistage: tensors of up to eight axes are handed over");
  auto* k = new detail::kept<Tensor>{{}, std::move(x), {}, {}};
  const auto v = k->tensor.view();
  for (int a = 0; a < axes; ++a) {
    k->extents[std::size_t(a)] = v.extents[a];
    k->strides[std::size_t(a)] = v.strides[a];
  }
  k->described_.tensor = {.data = const_cast<T*>(v.data),
                          .device = {detail::kind_of<typename Tensor::backend_type>(), 0},
                          .axes = axes,
                          .type = type_of<T>::value,
                          .extents = k->extents.data(),
                          .strides = k->strides.data()};
  k->described_.owner = k;
  k->described_.deleter = [](managed* m) {
    delete static_cast<detail::kept<Tensor>*>(m->owner);
  };
  return pointer(&k->described_, detail::free);
}

/// What somebody else made, seen as a view of elements T along N axes; it must outlive the
/// view. @throws value_error where its type, device or number of axes is another
template <class T, int N, class Backend = typename default_backend<T>::type>
auto take(const described& t, const Backend& backend = Backend()) {
  require<value_error>(t.type == type_of<std::remove_const_t<T>>::value,
                       "dlpack: elements have type code ", int(t.type.code), " of ",
                       int(t.type.bits), " bits and ", t.type.lanes, " lanes; code ",
                       int(type_of<std::remove_const_t<T>>::value.code), " of ", 8 * sizeof(T),
                       " bits is asked for");
  require<value_error>(t.axes == N, "dlpack: the tensor has ", t.axes, " axes, ", N,
                       " are asked for");
  const bool on_host =
      t.device.kind == device_kind::cpu || t.device.kind == device_kind::cuda_host;
  require<value_error>(on_host == Backend::on_host, "dlpack: the elements lie on device ",
                       int(t.device.kind), ", not where ", std::string(Backend::name),
                       " computes");
  require<value_error>(t.extents != nullptr || N == 0, "dlpack: the tensor has no extents");
  index_list<N> extents;
  for (int k = 0; k < N; ++k) {
    require<value_error>(t.extents[k] >= 0, "dlpack: axis ", k, " has extent ", t.extents[k]);
    extents[k] = t.extents[k];
  }
  const auto e = make_extents<rank<N>>(extents);
  index_list<N> strides = packed_strides(e);
  for (int k = 0; k < N && t.strides; ++k)
    strides[k] = t.strides[k];
  const auto address = static_cast<char*>(t.data) + t.byte_offset;
  require<value_error>(reinterpret_cast<std::uintptr_t>(address) % alignof(T) == 0 &&
                           (address != nullptr || e.size() == 0),
                       "dlpack: the elements' address does not suit their type");
  return tensor_view<T, rank<N>, Backend>(backend, {reinterpret_cast<T*>(address), e, strides});
}

}  // namespace multistage::dlpack

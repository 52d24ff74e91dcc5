// Weights in the form that a backend would rather have (Winograd's, on a CPU), kept from one
// forward pass to the next while the weights stay as they are.
#pragma once
#include <vector>

#include "../core/tensor.hpp"
#include "../ops/operation.hpp"

namespace multistage {

/// What an executor keeps of them, by node, up to a budget.
template <class T, class Backend>
class prepared_weights {
 public:
  /// How much memory this may take; layers beyond it are prepared at each call.
  void set_budget(index_t bytes) {
    budget_ = bytes;
    forget();
  }
  /// How much is kept now.
  index_t bytes() const {
    return bytes_;
  }
  /// A pass over these weights in this state begins; what was kept of others is forgotten.
  void of(const T* weights, std::uint64_t version) {
    if (version != version_ || weights != weights_)
      forget();
    version_ = version;
    weights_ = weights;
  }
  /// The weights of node number `node`, an operation with prepared_size and prepare, made when
  /// they are not there; null where there is no such form or the budget is spent.
  template <class Op>
  const T* get(Backend& b, std::size_t node, const Op& op, const ops::forward_pass<T>& pass) {
    const index_t size = op.prepared_size(b, pass);
    const index_t bytes = size * index_t(sizeof(T));
    if (size == 0)
      return nullptr;
    if (node >= kept_.size())
      kept_.resize(node + 1);
    if (kept_[node].size() == 0) {
      if (bytes_ + bytes > budget_)
        return nullptr;
      tensor<T, Backend> made(b, {1, 1, 1, size});
      op.prepare(b, pass, made.data());
      kept_[node] = std::move(made);  // whole, or not there
      bytes_ += bytes;
    }
    return kept_[node].data();
  }

 private:
  /// Gives all of it back.
  void forget() {
    kept_.clear();
    bytes_ = 0;
  }
  std::vector<tensor<T, Backend>> kept_;  ///< by node
  index_t bytes_ = 0;
  index_t budget_ = index_t{1} << 30;
  std::uint64_t version_ = 0;
  const T* weights_ = nullptr;
};

}  // namespace multistage

// The rows of a batch on their way through a network: sorted by stage, scaled by the
// preconditioning, and back to their places.
//
//   const routing r = model.route(sigmas);                 // who goes where
//   const prepared_batch<float> b = model.prepare(x, sigmas, r, labels);
//   model.engine().differentiate(weights, gradients, b.inputs, r.rows_by_stage, loss);
#pragma once
#include <vector>

#include "../core/config.hpp"
#include "../graph/inputs.hpp"

namespace multistage {

/// Labels that go with the rows of a batch, on the backend; null where there are none (they
/// count as zeros).
template <class T>
struct conditioning {
  const T* class_labels = nullptr;    ///< [rows, label_dim], one-hot
  const T* augment_labels = nullptr;  ///< [rows, augment_dim]
  const T* context = nullptr;         ///< [rows, context_tokens, context_dim]
};

/// Rows in the order of their stages.
struct routing {
  std::vector<index_t> order;          ///< sorted row -> row
  std::vector<index_t> rows_by_stage;  ///< how many rows each stage has
};

/// A routed batch on the backend, by sorted row; the model's, valid until its next evaluation.
template <class T>
struct prepared_batch {
  network_inputs<T> inputs;  ///< c_in x, c_noise and labels
  const index_t* order;      ///< sorted row -> row
  const double* in;          ///< c_in of each row
  const double* skip;        ///< c_skip of each row
  const double* out;         ///< c_out of each row
};

namespace functor {
/// to[i, :] = factor[i] from[order[i], :]
template <class From, class To>
struct gather_scaled {
  const From* from;
  const index_t* order;
  const double* factor;
  index_t size;
  To* to;
  MULTISTAGE_HD void operator()(index_t i) const {
    const index_t row = i / size;
    const double v = double(from[order[row] * size + i % size]);
    to[i] = To(factor ? factor[row] * v : v);
  }
};
/// to[order[i], :] = a[i] x[order[i], :] + b[i] y[i, :]: D with a = c_skip, b = c_out and y =
/// F; (dD/dx)^T x with b = c_in and y the gradient by the network's input.
template <class T>
struct scatter_mixed {
  const double* x;
  const T* y;
  const index_t* order;
  const double* a;
  const double* b;
  index_t size;
  double* to;
  MULTISTAGE_HD void operator()(index_t i) const {
    const index_t row = i / size;
    const index_t at = order[row] * size + i % size;
    to[at] = a[row] * x[at] + b[row] * double(y[i]);
  }
};
}  // namespace functor

}  // namespace multistage

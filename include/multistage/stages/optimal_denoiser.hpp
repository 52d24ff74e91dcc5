// The optimal denoiser of a finite data set y_1..y_n (Vincent 2011; Karras et al., arXiv 2206.00364, app. B.3; proposition 1 of
// arXiv 2312.09181): the posterior mean under white noise of standard deviation sigma,
//   D(x; sigma) = sum_i softmax_i(-|x - y_i|^2 / (2 sigma^2)) y_i.
// Images stream by in blocks with a running maximum, so memory is (queries + images) x block, never queries x images.
#pragma once
#include <algorithm>
#include <cmath>
#include <span>

#include "../core/tensor.hpp"
#include "../ops/reduce.hpp"

namespace multistage {

namespace functor {
/// |x_i|^2 of each row.
template <class T>
struct squared_norms {
  const T* x;
  index_t size;
  T* to;
  MULTISTAGE_HD void operator()(index_t row) const {
    T s = 0;
    for (index_t j = 0; j < size; ++j) s += x[row * size + j] * x[row * size + j];
    to[row] = s;
  }
};
/// One block of the running softmax for one query: scores are x.y on entry and weights exp(logit - maximum) on exit; what was summed
/// before is to be multiplied by `rescale`.
template <class T>
struct online_softmax {
  T* scores;  // [queries, block]
  index_t block, pitch;
  const T* image_norms;        // [block]
  const T* inverse_variance;   // [queries]
  T *maximum, *sum, *rescale;  // [queries]
  bool first;
  MULTISTAGE_HD void operator()(index_t q) const {
    T* s = scores + q * pitch;
    const T h = inverse_variance[q];
    T most = first ? (s[0] - T(0.5) * image_norms[0]) * h : maximum[q];
    for (index_t j = 0; j < block; ++j) {
      s[j] = (s[j] - T(0.5) * image_norms[j]) * h;  // |x|^2 is the same for all images
      if (s[j] > most) most = s[j];
    }
    const T scale = first ? T(0) : T(::exp(double(maximum[q] - most)));
    T total = first ? T(0) : sum[q] * scale;
    for (index_t j = 0; j < block; ++j) total += s[j] = T(::exp(double(s[j] - most)));
    maximum[q] = most;
    sum[q] = total;
    rescale[q] = scale;
  }
};
template <class T>
struct scale_rows {
  T* y;
  const T* factor;
  index_t size;
  bool inverse;
  MULTISTAGE_HD void operator()(index_t i) const {
    const T f = factor[i / size];
    y[i] = inverse ? y[i] / f : y[i] * f;
  }
};
}  // namespace functor

/// The optimal denoiser over images that lie on the backend. T should be double where results are compared at a threshold.
template <class T, class Backend>
class optimal_denoiser {
 public:
  /// @param images [n, h, w, c]; must outlive this object. @throws value_error when there are none.
  optimal_denoiser(Backend backend, view<const T> images) : backend_(backend), images_(images), norms_(backend, {images.extents.rows, 1, 1, 1}) {
    require<value_error>(images.extents.rows > 0, "optimal_denoiser: the data set is empty; give at least one image");
    backend_.for_each_index(images.extents.rows, functor::squared_norms<T>{images.data, images.extents.row_size(), norms_.data()}, 64);
  }
  index_t image_count() const { return images_.extents.rows; }
  const view<const T>& images() const { return images_; }

  /// d [m, ...] = D(x; sigma) for queries x [m, ...] with a noise level each (sigma is noise over signal; x is unscaled).
  void operator()(view<const T> x, std::span<const double> sigmas, view<T> d) const {
    const index_t m = x.extents.rows, size = images_.extents.row_size(), n = image_count();
    require<shape_error>(x.extents.row_size() == size && d.extents == x.extents && index_t(sigmas.size()) == m, "optimal_denoiser: queries ", x.extents,
                         ", results ", d.extents, " and ", sigmas.size(), " noise levels do not fit images ", images_.extents);
    for (index_t first = 0; first < m; first += queries) {
      const index_t count = std::min(queries, m - first);
      std::vector<T> inverse(static_cast<std::size_t>(count));
      for (index_t q = 0; q < count; ++q) {
        const double s = sigmas[first + q];
        require<value_error>(s > 0 && std::isfinite(s), "optimal_denoiser: sigma of query ", first + q, " is ", s, "; it must be finite and above 0");
        inverse[q] = T(1 / (s * s));
      }
      backend_.upload(inverse.data(), inverse_variance_.data(), count);
      T* out = d.data + first * size;
      // A few queries are bound by reading the images: blocks that stay in a second-level cache are read from memory once, not twice.
      const index_t step = count > few ? block : std::clamp(cached_bytes / (size * index_t(sizeof(T))), index_t{16}, block);
      for (index_t i = 0; i < n; i += step) {
        const index_t b = std::min(step, n - i);
        const T* y = images_.data + i * size;
        gemm(backend_, gemm_problem<T>{count, b, size, T(1), x.data + first * size, size, false, y, size, true, T(0), scores_.data(), block});
        backend_.for_each_index(count,
                                functor::online_softmax<T>{scores_.data(), b, block, norms_.data() + i, inverse_variance_.data(), maximum_.data(), sum_.data(),
                                                           rescale_.data(), i == 0},
                                4);
        if (i > 0) backend_.for_each_index(count * size, functor::scale_rows<T>{out, rescale_.data(), size, false});
        gemm(backend_, gemm_problem<T>{count, size, b, T(1), scores_.data(), block, false, y, size, false, i > 0 ? T(1) : T(0), out, size});
      }
      backend_.for_each_index(count * size, functor::scale_rows<T>{out, sum_.data(), size, true});
    }
    backend_.synchronize();
  }

 private:
  static constexpr index_t queries = 256, block = 512, few = 8, cached_bytes = 512 << 10;
  mutable Backend backend_;
  view<const T> images_;
  mutable tensor<T, Backend> norms_;
  mutable tensor<T, Backend> scores_{backend_, {queries, 1, 1, block}}, inverse_variance_{backend_, {queries, 1, 1, 1}}, maximum_{backend_, {queries, 1, 1, 1}},
      sum_{backend_, {queries, 1, 1, 1}}, rescale_{backend_, {queries, 1, 1, 1}};
};

}  // namespace multistage

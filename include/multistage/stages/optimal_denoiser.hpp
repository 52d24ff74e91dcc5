// The optimal denoiser of a finite data set y_1..y_n (Vincent 2011; Karras et al., arXiv
// 2206.00364, app. B.3; proposition 1 of arXiv 2312.09181): the posterior mean under white
// noise of standard deviation sigma,
//   D(x; sigma) = sum_i softmax_i(-|x - y_i|^2 / (2 sigma^2)) y_i.
// Images stream by in blocks with a running maximum, so memory is (queries + images) x block,
// never queries x images; they may come from a source that is larger than memory.
//
// The distance in the exponent is |x|^2 - 2 x.y_i + |y_i|^2: its first term is the same for
// all i and drops out of the softmax, the last one is computed once, and the product of
// queries and images is a matrix product. Three matrices meet a block of images: scores = x
// Y^T, weights by the running softmax, and d += weights Y. For a few queries, where reading
// the images is what takes the time, each part of the images makes its own softmax of all
// queries and the parts are merged.
#pragma once
#include <algorithm>
#include <cmath>
#include <future>
#include <span>

#include "../core/one_user.hpp"
#include "../core/scratch.hpp"
#include "../core/tensor.hpp"
#include "../data/image_source.hpp"
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
    for (index_t j = 0; j < size; ++j)
      s += x[row * size + j] * x[row * size + j];
    to[row] = s;
  }
};
/// One block of the running softmax for one query: scores are x.y on entry and weights
/// exp(logit - maximum) on exit; what was summed before is to be multiplied by `rescale`.
template <class T>
struct online_softmax {
  T* scores;  // [queries, block]
  index_t block;
  index_t pitch;
  const T* image_norms;       // [block]
  const T* inverse_variance;  // [queries]
  T* maximum;                 // [queries]
  T* sum;                     // [queries]
  T* rescale;                 // [queries]
  bool first;
  MULTISTAGE_HD void operator()(index_t q) const {
    T* s = scores + q * pitch;
    const T h = inverse_variance[q];
    T most = first ? (s[0] - T(0.5) * image_norms[0]) * h : maximum[q];
    for (index_t j = 0; j < block; ++j) {
      s[j] = (s[j] - T(0.5) * image_norms[j]) * h;  // |x|^2 is the same for all images
      if (s[j] > most)
        most = s[j];
    }
    const T scale = first ? T(0) : T(::exp(double(maximum[q] - most)));
    // What was summed under the old maximum counts less under a larger one.
    T total = first ? T(0) : sum[q] * scale;
    for (index_t j = 0; j < block; ++j) {
      s[j] = T(::exp(double(s[j] - most)));
      total += s[j];
    }
    maximum[q] = most;
    sum[q] = total;
    rescale[q] = scale;
  }
};
/// For a few queries reading the images is what takes time: each part of the images makes its
/// own running softmax of all queries, reading them once. maximum, sum [parts, queries], mean
/// [parts, queries, size].
template <class T>
struct posterior_of_part {
  const T* images;            // [count, size]
  const T* norms;             // [count]
  const T* x;                 // [queries, size]
  const T* inverse_variance;  // [queries]
  index_t count;
  index_t size;
  index_t queries;
  index_t parts;
  T* maximum;
  T* sum;
  T* mean;
  // Images at a time, which stay in a cache.
  static constexpr index_t group = 8;
  // Partial sums of a product.
  static constexpr index_t lanes = 256 / sizeof(T);

  /// a.b of two images, as so many chains of additions as registers hold.
  MULTISTAGE_HD T product(const T* MULTISTAGE_RESTRICT a,
                          const T* MULTISTAGE_RESTRICT b) const {
    T partial[lanes] = {};
    index_t j = 0;
    for (; j + lanes <= size; j += lanes)
      for (index_t l = 0; l < lanes; ++l)
        partial[l] += a[j + l] * b[j + l];
    T total = 0;
    for (; j < size; ++j)
      total += a[j] * b[j];
    for (index_t l = 0; l < lanes; ++l)
      total += partial[l];
    return total;
  }
  MULTISTAGE_HD void operator()(index_t part) const {
    const index_t begin = part * count / parts;
    const index_t end = (part + 1) * count / parts;
    for (index_t i = begin; i < end; i += group) {
      const index_t n = end - i < group ? end - i : group;
      for (index_t q = 0; q < queries; ++q) {
        const index_t at = part * queries + q;
        const T* const query = x + q * size;           // [size]
        T* MULTISTAGE_RESTRICT to = mean + at * size;  // [size]
        T score[group];
        T most = i == begin ? T(-1e30) : maximum[at];
        for (index_t k = 0; k < n; ++k) {
          const T* const image = images + (i + k) * size;  // [size]
          const T half_norm = T(0.5) * norms[i + k];
          score[k] = (product(image, query) - half_norm) * inverse_variance[q];
          if (score[k] > most)
            most = score[k];
        }
        // What was summed under the old maximum counts less under a larger one.
        if (i == begin) {
          for (index_t j = 0; j < size; ++j)
            to[j] = 0;
          sum[at] = 0;
        } else if (most > maximum[at]) {
          const T scale = T(::exp(double(maximum[at] - most)));
          for (index_t j = 0; j < size; ++j)
            to[j] *= scale;
          sum[at] *= scale;
        }
        maximum[at] = most;
        for (index_t k = 0; k < n; ++k) {
          const T weight = T(::exp(double(score[k] - most)));
          if (weight == T(0))
            continue;
          sum[at] += weight;
          const T* MULTISTAGE_RESTRICT y = images + (i + k) * size;
          for (index_t j = 0; j < size; ++j)
            to[j] += weight * y[j];
        }
      }
    }
  }
};
/// The parts' running softmaxes together, as one of all images.
template <class T>
struct merge_parts {
  const T* maximum;
  const T* sum;
  const T* mean;
  index_t size;
  index_t queries;
  index_t parts;
  T* merged_maximum;
  T* merged_sum;
  T* d;
  MULTISTAGE_HD void operator()(index_t i) const {
    const index_t q = i / size;
    T most = maximum[q];
    for (index_t p = 1; p < parts; ++p)
      if (maximum[p * queries + q] > most)
        most = maximum[p * queries + q];
    T total = 0;
    T value = 0;
    for (index_t p = 0; p < parts; ++p) {
      const index_t at = p * queries + q;
      const T weight = T(::exp(double(maximum[at] - most)));
      total += weight * sum[at];
      value += weight * mean[at * size + i % size];
    }
    d[i] = value;
    if (i % size == 0) {
      merged_maximum[q] = most;
      merged_sum[q] = total;
    }
  }
};
/// y[row] times a factor, or over it.
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

/// Of each query, what a posterior mean is divided by, and what its weights are relative to.
template <class T>
struct posterior_sums {
  std::vector<T> maximum;  ///< of the images' scores
  std::vector<T> sum;      ///< of their weights exp(score - maximum)
};

/// The optimal denoiser of images on the backend, or of a source of any size. T should be
/// double where results are compared at a threshold: a source holds float32, which is widened
/// block by block.
template <class T, class Backend>
class optimal_denoiser {
 public:
  /// @param images [n, h, w, c]; must outlive this object. @throws value_error when there are
  /// none.
  optimal_denoiser(Backend backend, view<const T> images);
  /// Reads the source once for all queries of a call.
  optimal_denoiser(Backend backend, image_source source);
  /// Bytes that one takes of a source of such images, whatever it is asked: a block of them as
  /// it is read, the next one, widened, and on the backend, with its scores.
  static index_t working_bytes(const shape& images) {
    const index_t read = 2 * index_t(sizeof(float)) + 2 * index_t(sizeof(T));
    return block * images.row_size() * read + queries * block * index_t(sizeof(T));
  }
  /// n, the images that the mean is taken over.
  index_t image_count() const {
    return extents_.rows;
  }
  /// Of the data set, [n, height, width, channels].
  const shape& extents() const {
    return extents_;
  }
  /// Images by their numbers, on the backend: to [which.size(), ...].
  void gather(std::span<const index_t> which, view<T> to) const;

  /// d [m, ...] = D(x; sigma) for queries x [m, ...] with a noise level each (sigma is noise
  /// over signal; x is unscaled).
  void operator()(view<const T> x, std::span<const double> sigmas, view<T> d) const {
    const auto visit = user_.enter("optimal_denoiser");
    add_up(x, sigmas, d);
    const functor::scale_rows<T> over_sums{d.data, sum_.data(), extents_.row_size(), true};
    backend_.for_each_index(d.extents.size(), over_sums);
    backend_.synchronize();
  }
  /// What the mean is the quotient of, for data sets of which these images are a part: d =
  /// sum_i w_i y_i and, for each query, sum_i w_i and the m in w_i = exp(s_i - m), where s_i =
  /// (x.y_i - |y_i|^2 / 2) / sigma^2.
  posterior_sums<T> sums(view<const T> x, std::span<const double> sigmas, view<T> d) const;

 private:
  /// The running softmax over all images: d, maximum_ and sum_.
  void add_up(view<const T> x, std::span<const double> sigmas, view<T> d) const;

  static constexpr index_t queries = 256;    // at a time
  static constexpr index_t block = 512;      // images at a time
  static constexpr index_t few = 8;          // queries for which images are read once
  static constexpr index_t most_parts = 64;  // of the images, for few queries

  /// Memory for m queries.
  void grow(index_t m) const {
    for (auto* t : {&inverse_variance_, &maximum_, &sum_, &rescale_})
      grown(*t, backend_, m);
    grown(scores_, backend_, std::min(queries, m) * block);
  }
  /// n images of a source, widened to T.
  void upload(const std::vector<float>& host, index_t n, T* to) const;
  /// f(first, n, images, norms) for all blocks. A source reads the next block while this one is
  /// worked on.
  template <class F>
  void for_each_block(F&& f) const {
    const index_t n = image_count();
    const index_t size = extents_.row_size();
    if (in_memory_) {
      const T* const norms = norms_.data();
      for (index_t i = 0; i < n; i += block)
        f(i, std::min(block, n - i), in_memory_ + i * size, norms + i);
      return;
    }
    const T* const images = read_.data();
    const T* const norms = norms_.data();
    const functor::squared_norms<T> norms_of_read{images, size, norms_.data()};
    std::vector<float> host(static_cast<std::size_t>(block * size));
    std::vector<float> next(host.size());
    source_.read_block(0, std::min(block, n), host.data());
    for (index_t i = 0; i < n; i += block) {
      const index_t have = std::min(block, n - i);
      const index_t behind = i + have;
      std::future<void> reading;
      // Where no thread can be had, it is read when it is asked for.
      if (behind < n)
        reading = std::async(std::launch::async | std::launch::deferred, [&, behind] {
          source_.read_block(behind, std::min(block, n - behind), next.data());
        });
      upload(host, have, read_.data());
      backend_.for_each_index(have, norms_of_read, 64);
      f(i, have, images, norms);
      backend_.synchronize();
      if (reading.valid())
        reading.get();
      std::swap(host, next);
    }
  }
  /// One block of images into the running softmax of queries [at, at + count).
  void take_in(index_t count,
               index_t at,
               index_t n,
               const T* images,
               const T* norms,
               const T* x,
               T* d,
               bool first) const;
  /// The same for a few queries, of images in memory.
  void of_few(view<const T> x, view<T> d) const;

  mutable Backend backend_;
  shape extents_;
  const T* in_memory_ = nullptr;
  image_source source_;
  mutable std::vector<T> widened_;
  mutable tensor<T, Backend> norms_;
  mutable tensor<T, Backend> read_;
  mutable tensor<T, Backend> scores_;
  mutable tensor<T, Backend> inverse_variance_;
  mutable tensor<T, Backend> maximum_;
  mutable tensor<T, Backend> sum_;
  mutable tensor<T, Backend> rescale_;
  mutable tensor<T, Backend> parts_;
  one_user user_;
};

template <class T, class Backend>
optimal_denoiser<T, Backend>::optimal_denoiser(Backend backend, view<const T> images)
    : backend_(backend),
      extents_(images.extents),
      in_memory_(images.data) {
  require<value_error>(image_count() > 0,
                       "optimal_denoiser: the data set is empty; give at least one image");
  norms_ = tensor<T, Backend>(backend_, {image_count(), 1, 1, 1});
  const index_t size = extents_.row_size();
  const functor::squared_norms<T> norms{images.data, size, norms_.data()};
  backend_.for_each_index(image_count(), norms, 64);
}

template <class T, class Backend>
optimal_denoiser<T, Backend>::optimal_denoiser(Backend backend, image_source source)
    : backend_(backend),
      extents_(source.extents),
      source_(std::move(source)) {
  require<value_error>(image_count() > 0,
                       "optimal_denoiser: the data set is empty; give at least one image");
  norms_ = tensor<T, Backend>(backend_, {block, 1, 1, 1});
  read_ = tensor<T, Backend>(backend_, {block, 1, 1, extents_.row_size()});
}

template <class T, class Backend>
void optimal_denoiser<T, Backend>::gather(std::span<const index_t> which, view<T> to) const {
  const index_t size = extents_.row_size();
  std::vector<float> one(static_cast<std::size_t>(in_memory_ ? 0 : size));
  for (std::size_t k = 0; k < which.size(); ++k) {
    T* row = to.data + index_t(k) * size;
    if (in_memory_) {
      backend_.copy(in_memory_ + which[k] * size, row, size);
      continue;
    }
    source_.read(which.subspan(k, 1), one.data());
    upload(one, 1, row);
  }
}

template <class T, class Backend>
posterior_sums<T> optimal_denoiser<T, Backend>::sums(view<const T> x,
                                                     std::span<const double> sigmas,
                                                     view<T> d) const {
  const auto visit = user_.enter("optimal_denoiser");
  add_up(x, sigmas, d);
  const index_t count = index_t(sigmas.size());
  posterior_sums<T> found;
  found.maximum.resize(sigmas.size());
  found.sum.resize(sigmas.size());
  backend_.download(maximum_.data(), found.maximum.data(), count);
  backend_.download(sum_.data(), found.sum.data(), count);
  return found;
}

template <class T, class Backend>
void optimal_denoiser<T, Backend>::add_up(view<const T> x,
                                          std::span<const double> sigmas,
                                          view<T> d) const {
  const index_t m = x.extents.rows;
  const index_t size = extents_.row_size();
  const bool fit = x.extents.row_size() == size && d.extents == x.extents;
  require<shape_error>(fit && index_t(sigmas.size()) == m, "optimal_denoiser: queries ",
                       x.extents, ", results ", d.extents, " and ", sigmas.size(),
                       " noise levels do not fit images ", extents_);
  std::vector<T> inverse;
  for (index_t q = 0; q < m; ++q) {
    const double s = sigmas[std::size_t(q)];
    require<value_error>(s > 0 && std::isfinite(s), "optimal_denoiser: sigma of query ", q,
                         " is ", s, "; it must be finite and above 0");
    inverse.push_back(T(1 / (s * s)));
  }
  grow(m);
  backend_.upload(inverse.data(), inverse_variance_.data(), m);
  if (in_memory_ && m <= few)
    return of_few(x, d);
  for_each_block([&](index_t first, index_t n, const T* images, const T* norms) {
    for (index_t q = 0; q < m; q += queries) {
      const index_t count = std::min(queries, m - q);
      const T* const some = x.data + q * size;  // [count, size]
      T* const results = d.data + q * size;     // [count, size]
      take_in(count, q, n, images, norms, some, results, first == 0);
    }
  });
}

template <class T, class Backend>
void optimal_denoiser<T, Backend>::upload(const std::vector<float>& host,
                                          index_t n,
                                          T* to) const {
  const index_t values = n * extents_.row_size();
  if constexpr (std::is_same_v<T, float>)
    backend_.upload(host.data(), to, values);
  else {
    widened_.assign(host.begin(), host.begin() + values);
    backend_.upload(widened_.data(), to, values);
  }
}

template <class T, class Backend>
void optimal_denoiser<T, Backend>::take_in(index_t count,
                                           index_t at,
                                           index_t n,
                                           const T* images,
                                           const T* norms,
                                           const T* x,
                                           T* d,
                                           bool first) const {
  const index_t size = extents_.row_size();
  const matrix_view<const T> of_block{images, n, size};
  const matrix_view<T> scores{scores_.data(), count, n, block};
  multiply(backend_, {x, count, size}, of_block.transposed(), scores);
  const functor::online_softmax<T> softmax{
      .scores = scores_.data(),
      .block = n,
      .pitch = block,
      .image_norms = norms,
      .inverse_variance = inverse_variance_.data() + at,
      .maximum = maximum_.data() + at,
      .sum = sum_.data() + at,
      .rescale = rescale_.data() + at,
      .first = first,
  };
  backend_.for_each_index(count, softmax, 4);
  if (!first) {
    const functor::scale_rows<T> rescaled{d, rescale_.data() + at, size, false};
    backend_.for_each_index(count * size, rescaled);
  }
  multiply(backend_, scores, of_block, matrix_view<T>{d, count, size}, 1, first ? 0 : 1);
}

template <class T, class Backend>
void optimal_denoiser<T, Backend>::of_few(view<const T> x, view<T> d) const {
  const index_t m = x.extents.rows;
  const index_t size = extents_.row_size();
  const index_t parts = std::min(most_parts, image_count());
  T* mean = grown(parts_, backend_, parts * m * (size + 2));  // [parts, m, size]
  T* maximum = mean + parts * m * size;                       // [parts, m]
  T* sum = maximum + parts * m;                               // [parts, m]
  const functor::posterior_of_part<T> of_part{
      .images = in_memory_,
      .norms = norms_.data(),
      .x = x.data,
      .inverse_variance = inverse_variance_.data(),
      .count = image_count(),
      .size = size,
      .queries = m,
      .parts = parts,
      .maximum = maximum,
      .sum = sum,
      .mean = mean,
  };
  backend_.for_each_index(parts, of_part, 1);
  const functor::merge_parts<T> merged{
      .maximum = maximum,
      .sum = sum,
      .mean = mean,
      .size = size,
      .queries = m,
      .parts = parts,
      .merged_maximum = maximum_.data(),
      .merged_sum = sum_.data(),
      .d = d.data,
  };
  backend_.for_each_index(m * size, merged);
}

}  // namespace multistage

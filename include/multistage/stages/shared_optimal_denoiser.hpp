// The optimal denoiser of a data set that processes share, of which none need hold more than
// its own images: each adds up its own part of
//   D(x; sigma) = sum_i w_i y_i / sum_i w_i,   w_i = exp(s_i - m),
// with a maximum m of its own; the largest m of all rescales the parts, which are then summed.
//
//   const posterior_mean_of<double, cpu> best(cpu(), own_rows(images, world), world);
//   cluster_by_optimal_denoiser(cpu(), best, {.alpha = 0.95});
//
// All processes make the same calls with the same arguments, and get the same results.
#pragma once
#include <limits>
#include <optional>

#include "../distributed/fixed_sum.hpp"
#include "../distributed/process_group.hpp"
#include "../distributed/together.hpp"
#include "optimal_denoiser.hpp"

namespace multistage {

/// The posterior mean over all processes' images. Images are numbered in the order of ranks.
template <class T, class Backend, communicator Group>
class shared_optimal_denoiser {
 public:
  /// @param own this process's images, any number of them. @throws value_error when no process
  /// has any, for values that are not finite, or when all images of all are equal; shape_error
  /// when they are of different extents
  MULTISTAGE_COLD shared_optimal_denoiser(Backend backend, Group group, image_source own)
      : backend_(backend),
        group_(std::move(group)),
        own_(std::move(own)) {
    const std::span<const shape> own_extents(&own_.extents, 1);
    const std::vector<shape> parts = all_gather(group_, own_extents);
    extents_ = own_.extents;
    extents_.rows = 0;
    for (const shape& part : parts) {
      begin_.push_back(extents_.rows);
      extents_.rows += part.rows;
      shape one = part;
      one.rows = own_.extents.rows;
      require<shape_error>(one == own_.extents, "shared data set: images ", part, " of rank ",
                           begin_.size() - 1, " are not of one size with rank ", group_.rank(),
                           "'s, ", own_.extents);
    }
    require<value_error>(extents_.size() > 0,
                         "shared data set: no process has any images; give at least one");
    check_values();
    if (own_.extents.rows > 0)
      mine_.emplace(backend, own_);
  }

  /// n, the images of all processes.
  index_t image_count() const {
    return extents_.rows;
  }
  /// Of the whole data set, [n, height, width, channels].
  const shape& extents() const {
    return extents_;
  }
  /// Images by their numbers, on the backend: to [which.size(), ...].
  void gather(std::span<const index_t> which, view<T> to) const {
    const index_t first = begin_[std::size_t(group_.rank())];
    const index_t size = extents_.row_size();
    std::vector<index_t> here;  // counted from this process's first
    for (const index_t image : which) {
      const index_t place = image - first;
      if (place >= 0 && place < own_.extents.rows)
        here.push_back(place);
    }
    std::vector<float> values(here.size() * std::size_t(size));
    together(group_, [&] { own_.read(here, values.data()); });
    const std::vector<float> all = all_gather(group_, std::span<const float>(values));
    // They come rank after rank; within a rank in the order that was asked for.
    std::vector<T> rows(which.size() * std::size_t(size));
    auto at = all.begin();
    for (std::size_t rank = 0; rank < begin_.size(); ++rank)
      for (std::size_t k = 0; k < which.size(); ++k) {
        if (owner_of(which[k]) != rank)
          continue;
        std::copy_n(at, size, rows.begin() + std::ptrdiff_t(k) * size);
        at += size;
      }
    backend_.upload(rows.data(), to.data, index_t(rows.size()));
  }

  /// d [m, ...] = D(x; sigma), as optimal_denoiser has it.
  void operator()(view<const T> x, std::span<const double> sigmas, view<T> d) const {
    const std::size_t size = std::size_t(extents_.row_size());
    const std::size_t queries = sigmas.size();
    // A process without images adds nothing: weights of 0, and a maximum below all others.
    posterior_sums<T> own;
    own.maximum.assign(queries, std::numeric_limits<T>::lowest());
    own.sum.assign(queries, T(0));
    std::vector<T> mean(std::size_t(d.extents.size()), T(0));  // [queries, size]
    together(group_, [&] {
      if (!mine_)
        return;
      own = mine_->sums(x, sigmas, d);
      backend_.download(d.data, mean.data(), d.extents.size());
    });
    const auto maxima =
        all_gather(group_, std::span<const T>(own.maximum));            // [ranks, queries]
    const auto sums = all_gather(group_, std::span<const T>(own.sum));  // [ranks, queries]
    std::vector<T> total(queries, T(0));
    for (std::size_t q = 0; q < queries; ++q) {
      // The largest exponent of all, to which every process's sums are scaled.
      T most = maxima[q];
      for (std::size_t i = q; i < maxima.size(); i += queries)
        most = std::max(most, maxima[i]);
      for (std::size_t i = q; i < maxima.size(); i += queries)
        total[q] += sums[i] * std::exp(maxima[i] - most);
      const T scale = std::exp(own.maximum[q] - most);
      for (std::size_t i = q * size; i < (q + 1) * size; ++i)
        mean[i] *= scale;
    }
    fixed_sum<T> sum(group_.size(), index_t(mean.size()));
    sum.add(group_.rank(), mean);
    std::vector<T> all = sum.all_reduce(group_);
    for (std::size_t i = 0; i < all.size(); ++i)
      all[i] /= total[i / size];
    backend_.upload(all.data(), d.data, index_t(all.size()));
  }

 private:
  /// The rank that holds an image: the last that begins at it or before.
  std::size_t owner_of(index_t image) const {
    const auto next = std::upper_bound(begin_.begin(), begin_.end(), image);
    return std::size_t(next - begin_.begin()) - 1;
  }
  /// What check_images asks of a data set, of that of all processes.
  void check_values() {
    bool equal = true;
    std::vector<float> first;
    together(group_, [&] {
      equal = all_images_equal(own_);
      first.resize(std::size_t(own_.extents.rows > 0 ? own_.extents.row_size() : 0));
      if (!first.empty())
        own_.read_block(0, 1, first.data());
    });
    const auto firsts = all_gather(group_, std::span<const float>(first));
    const std::size_t size = std::size_t(extents_.row_size());
    for (std::size_t i = size; i < firsts.size(); ++i)
      equal = equal && firsts[i] == firsts[i % size];
    const bool varies = any(group_, !equal);
    require<value_error>(varies || extents_.rows == 1, "shared data set: all ", extents_.rows,
                         " images are equal; nothing can be learnt from them");
  }

  mutable Backend backend_;
  mutable Group group_;
  image_source own_;
  shape extents_{0, 0, 0, 0};
  std::vector<index_t> begin_;  // of each rank's images
  std::optional<optimal_denoiser<T, Backend>> mine_;
};

/// The posterior mean of a set that processes share, or of one that this process has by itself:
/// one type for both, so that what is made of it is compiled once.
template <class T, class Backend>
class posterior_mean_of {
 public:
  /// @param own this process's images (own_rows of data/shared_images.hpp). @throws
  /// value_error, shape_error for sets from which nothing can be learnt
  MULTISTAGE_COLD posterior_mean_of(Backend backend,
                                    const image_source& own,
                                    const process_group& group = {}) {
    if (group.size() > 1) {
      shared_.emplace(backend, group, own);
      return;
    }
    check_images(own);
    alone_.emplace(backend, own);
  }
  /// Of the whole data set, [n, height, width, channels].
  const shape& extents() const {
    return alone_ ? alone_->extents() : shared_->extents();
  }
  /// Images by their numbers, on the backend: to [which.size(), ...].
  void gather(std::span<const index_t> which, view<T> to) const {
    alone_ ? alone_->gather(which, to) : shared_->gather(which, to);
  }
  /// d [m, ...] = D(x; sigma), as optimal_denoiser has it.
  void operator()(view<const T> x, std::span<const double> sigmas, view<T> d) const {
    alone_ ? (*alone_)(x, sigmas, d) : (*shared_)(x, sigmas, d);
  }

 private:
  std::optional<optimal_denoiser<T, Backend>> alone_;
  std::optional<shared_optimal_denoiser<T, Backend, process_group>> shared_;
};

}  // namespace multistage

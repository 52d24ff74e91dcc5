// The rows of a training step, read while the step before is computed. Which images a step sees
// is a function of (seed, step), so what a step will need is known before it begins.
//
//   batch_reader reader(images, mirror{}, {.labels = true});
//   image_batch batch = reader.take({seed, step}, rows);     // read ahead, or else now
//   reader.prepare({seed, step + 1}, rows);                  // by a thread of its own
//
// What is read ahead is the same bits as what is read when it is asked for; where no thread can
// be had it is read then, and so it is in a child of fork(). What cannot be read ahead is tried
// again when it is asked for, and what is thrown then arrives.
#pragma once
#include <exception>
#include <future>
#include <new>
#include <numeric>
#include <system_error>

#include "../core/fork.hpp"
#include "image_source.hpp"
#include "transform.hpp"

namespace multistage {

/// Which image row `row` of a step's batch shows, of so many: drawn with replacement.
inline index_t image_of_row(const step_numbers& numbers, index_t row, index_t images) {
  return numbers.of(purpose::data_order).below(std::uint64_t(row), std::uint32_t(images));
}

/// A step's rows, as they go into the network.
struct image_batch {
  std::vector<float> images{};          ///< [rows, h, w, c], transformed
  std::vector<float> augment_labels{};  ///< [rows, label_count of the transform]
  std::vector<int> classes{};           ///< [rows], where they are wanted
  std::vector<float> context{};         ///< [rows, tokens, width], where it is wanted
};

/// What of a data set goes with its images.
struct batch_parts {
  bool labels = false;   ///< the classes
  bool context = false;  ///< the embeddings
};

/// Reads batches, the next one ahead. One thread at a time.
class batch_reader {
 public:
  /// @throws value_error for a set without images, or of 2^32 or more, or without the parts
  /// that are asked for; shape_error, value_error as the transform does
  MULTISTAGE_COLD explicit batch_reader(image_source images,
                                        image_transform transform = {},
                                        const batch_parts& parts = {})
      : shared_(std::make_shared<state>(std::move(images), std::move(transform), parts)) {
    const image_source& set = shared_->images;
    require<value_error>(set.extents.rows > 0, "data set: no images, extents are ", set.extents,
                         "; give at least one");
    require<value_error>(set.extents.rows <= 0xffffffff, "data set: ", set.extents.rows,
                         " images; a batch is drawn from at most 2^32 - 1");
    require<value_error>(!parts.labels || set.read_labels, "data set: has no labels");
    require<value_error>(!parts.context || set.context, "data set: has no context");
  }
  batch_reader(batch_reader&&) = default;
  batch_reader& operator=(batch_reader&&) = default;
  ~batch_reader() {
    leave_after_fork();
  }
  /// What is read.
  const image_source& images() const {
    return shared_->images;
  }
  /// Of one image as it leaves the transform.
  const shape& image_extents() const {
    return shared_->transform.extents;
  }
  /// How many augmentation labels a row has.
  index_t label_count() const {
    return shared_->transform.label_count;
  }

  /// The rows of a step, as they were read ahead, or else read now. @param rows their numbers
  /// in the step's batch, in the order in which they are wanted; all processes of a run that
  /// share a batch read their own. @throws what reading throws
  image_batch take(const step_numbers& numbers, const std::vector<index_t>& rows) {
    begin_anew_after_fork();
    if (ahead_.valid() && is_prepared(numbers, rows)) {
      try {
        return ahead_.get();
      } catch (const std::exception&) {  // it may have been memory that was short for a moment
      }
    }
    return read(numbers, rows);
  }
  /// The first rows of a step's batch.
  image_batch take(const step_numbers& numbers, index_t count) {
    return take(numbers, first_rows(count));
  }
  /// The rows of a step, read now; what was read ahead stays. @throws what reading throws
  image_batch read(const step_numbers& numbers, const std::vector<index_t>& rows) {
    begin_anew_after_fork();
    if (ahead_.valid())
      ahead_.wait();  // a source takes one call at a time
    return shared_->read(numbers, rows, {});
  }
  /// The first rows of a step's batch.
  image_batch read(const step_numbers& numbers, index_t count) {
    return read(numbers, first_rows(count));
  }
  /// Begins to read a step's rows. Does nothing where that cannot be begun: `take` reads then.
  /// @param spare a batch that is no longer needed, whose memory is used again
  void prepare(const step_numbers& numbers,
               const std::vector<index_t>& rows,
               image_batch spare = {}) noexcept {
    try {
      begin_anew_after_fork();
      if (ahead_.valid() && is_prepared(numbers, rows))
        return;
      ahead_ = {};
      prepared_ = numbers;
      prepared_rows_ = rows;
      fork_depth_ = fork_depth();
      ahead_ = std::async(std::launch::async, [shared = shared_, numbers, rows,
                                               spare = std::move(spare)]() mutable {
        return shared->read(numbers, rows, std::move(spare));
      });
    } catch (const std::bad_alloc&) {
    } catch (const std::system_error&) {  // no thread can be had
    }
  }

  /// The first rows of a step's batch.
  void prepare(const step_numbers& numbers, index_t count, image_batch spare = {}) {
    prepare(numbers, first_rows(count), std::move(spare));
  }
  /// Numbers from 0.
  static std::vector<index_t> first_rows(index_t count) {
    std::vector<index_t> rows(static_cast<std::size_t>(count));
    std::iota(rows.begin(), rows.end(), index_t{0});
    return rows;
  }

 private:
  /// What the reading thread works with; alive as long as either side.
  struct state {
    image_source images;
    image_transform unbound;
    batch_parts parts;
    bound_transform transform = unbound.bind(images.extents);
    std::vector<float> untransformed{};

    state(image_source set, image_transform what, const batch_parts& wanted)
        : images(std::move(set)),
          unbound(std::move(what)),
          parts(wanted) {
      transform.extents.rows = 1;
    }
    image_batch read(const step_numbers& numbers,
                     const std::vector<index_t>& numbered,
                     image_batch batch) {
      const index_t rows = std::ssize(numbered);
      std::vector<index_t> which;
      for (const index_t r : numbered)
        which.push_back(image_of_row(numbers, r, images.extents.rows));
      const auto sized = [rows](auto& values, index_t size) {
        values.resize(std::size_t(rows * size));
        return values.data();
      };
      const index_t size = transform.extents.row_size();
      float* const to = sized(batch.images, size);
      if (!unbound) {
        images.read(which, to);
      } else {
        const index_t before = images.extents.row_size();
        const float* const from = sized(untransformed, before);
        images.read(which, untransformed.data());
        batch.augment_labels.assign(std::size_t(rows * transform.label_count), 0.0f);
        for (index_t r = 0; r < rows; ++r)
          transform.apply(from + r * before, numbers, numbered[std::size_t(r)], to + r * size,
                          batch.augment_labels.data() + r * transform.label_count);
      }
      if (parts.labels)
        images.read_labels(which, sized(batch.classes, 1));
      if (parts.context)
        images.context->read(which, sized(batch.context, images.context->extents.row_size()));
      return batch;
    }
  };

  /// Whether the batch that is read ahead is the one that is asked for.
  bool is_prepared(const step_numbers& numbers, const std::vector<index_t>& rows) const {
    return prepared_.seed == numbers.seed && prepared_.step == numbers.step &&
           prepared_rows_ == rows;
  }
  /// In a child of fork() the thread that reads does not exist. What it was to give is left
  /// alone, since its end would be waited for.
  bool leave_after_fork() noexcept {
    if (!ahead_.valid() || fork_depth_ == fork_depth())
      return false;
    static_cast<void>(new (std::nothrow) std::future<image_batch>(std::move(ahead_)));
    return true;
  }
  /// So are the source's and the transform's scratch, which it may have been writing.
  void begin_anew_after_fork() {
    if (leave_after_fork())
      shared_ = std::make_shared<state>(shared_->images, shared_->unbound, shared_->parts);
  }

  std::shared_ptr<state> shared_;
  step_numbers prepared_{};
  std::vector<index_t> prepared_rows_{};
  unsigned fork_depth_ = 0;
  std::future<image_batch> ahead_{};
};

}  // namespace multistage

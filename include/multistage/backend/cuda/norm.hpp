// Group normalisation on a GPU. The mathematics stands at the head of ops/norm.hpp, that of the
// gradients in cpu/norm.hpp.
//   statistics   a block a group; each thread's own mean and squares, merged as Chan, Golub and
//                LeVeque (1979) merge them, so that one pass over memory is as exact as two.
//   apply        a thread four channels of a pixel, so that loads and stores are 16 bytes wide.
//   backward     a block 32 channels of a row for the sums over pixels; the rest are functors
//                of the Thrust backend.
#pragma once
#include "../thrust/norm.hpp"
#include "block.hpp"
#include "reduce.hpp"

namespace multistage {
namespace cuda_kernel {

/// Number, mean and sum of squared deviations of some values.
struct moments {
  double count = 0;
  double mean = 0;
  double squares = 0;

  /// The moments of both sets of values.
  __device__ moments with(const moments& other) const {
    const double both = count + other.count;
    if (both == 0)
      return *this;
    const double difference = other.mean - mean;
    return {both, mean + difference * (other.count / both),
            squares + other.squares + difference * difference * (count * other.count / both)};
  }
};

/// Statistics [mean, 1 / standard deviation] of one group of one row a block.
template <class T>
__global__ void norm_statistics_of_group(thrust_kernel::norm_reader<T> reader) {
  __shared__ moments shared[warp_size];
  const norm_problem<T>& p = reader.p;
  const index_t row = blockIdx.x / p.groups;
  const index_t group = blockIdx.x % p.groups;
  const int per = int(reader.per());
  const index_t size = per * p.pixels;
  // Sums of this thread's values around its first one: near enough to their mean that nothing
  // cancels.
  T shift = 0;
  T sum = 0;
  T squares = 0;
  index_t count = 0;
  for (index_t i = threadIdx.x; i < size; i += blockDim.x) {
    const index_t pixel = index_t(std::uint32_t(i) / std::uint32_t(per));
    const T x = reader.x(row, pixel, group * per + (i - pixel * per));
    if (count == 0)
      shift = x;
    const T d = x - shift;
    sum += d;
    squares += d * d;
    ++count;
  }
  // This thread's moments, merged within the warp, then among warps by the first thread.
  moments own;
  if (count > 0) {
    const double n = double(count);
    const double mean = double(sum) / n;
    own = {n, double(shift) + mean, double(squares) - mean * double(sum)};
  }
  for (int distance = warp_size / 2; distance > 0; distance /= 2) {
    const moments other{__shfl_down_sync(whole_warp, own.count, distance),
                        __shfl_down_sync(whole_warp, own.mean, distance),
                        __shfl_down_sync(whole_warp, own.squares, distance)};
    own = own.with(other);
  }
  if (threadIdx.x % warp_size == 0)
    shared[threadIdx.x / warp_size] = own;
  __syncthreads();
  if (threadIdx.x != 0)
    return;
  for (unsigned warp = 1; warp < blockDim.x / warp_size; ++warp)
    own = own.with(shared[warp]);
  const double variance = own.squares > 0 ? own.squares / own.count : 0;
  p.statistics[2 * blockIdx.x] = T(own.mean);
  p.statistics[2 * blockIdx.x + 1] = T(1 / ::sqrt(variance + double(p.epsilon)));
}

/// Four neighbouring elements.
template <class T>
struct alignas(4 * sizeof(T)) four {
  T at[4];
};

/// y = silu?((x - mean) rstd weight + bias): a thread takes the same four channels of every
/// blockDim.y-th pixel of a run. Blocks (groups of channels, runs of pixels, rows).
template <class T, class Chunk>
__global__ void norm_apply_channels(thrust_kernel::norm_reader<T> reader, index_t run) {
  constexpr int width = sizeof(Chunk) / sizeof(T);
  const norm_problem<T>& p = reader.p;
  const index_t channel = (index_t(blockIdx.x) * blockDim.x + threadIdx.x) * width;
  const index_t all = reader.all();
  if (channel >= all)
    return;
  const index_t row = blockIdx.z;
  const bool second = channel >= p.channels;
  const T* const from = second ? p.x2 + row * p.pixels * p.channels2 + (channel - p.channels)
                               : p.x + row * p.pixels * p.channels + channel;
  const index_t step = second ? p.channels2 : p.channels;
  // (x - mean) rstd w' + b' as one multiply-add: the same for all pixels of these channels.
  T factor[width];
  T addend[width];
  for (int k = 0; k < width; ++k) {
    factor[k] = reader.rstd(row, channel + k) * reader.weight(row, channel + k);
    addend[k] = reader.bias(row, channel + k) - reader.mean(row, channel + k) * factor[k];
  }
  const index_t begin = index_t(blockIdx.y) * run;
  const index_t end = begin + run < p.pixels ? begin + run : p.pixels;
  for (index_t pixel = begin + threadIdx.y; pixel < end; pixel += blockDim.y) {
    Chunk values = *reinterpret_cast<const Chunk*>(from + pixel * step);
    T* const v = reinterpret_cast<T*>(&values);
    for (int k = 0; k < width; ++k) {
      const T z = v[k] * factor[k] + addend[k];
      v[k] = p.silu ? silu_function::value(z) : z;
    }
    *reinterpret_cast<Chunk*>(p.y + (row * p.pixels + pixel) * all + channel) = values;
  }
}

/// partials[row] = [sum over pixels of dz xhat, sum of dz]; blocks (groups of 32 channels,
/// rows).
template <class T>
__global__ void norm_partials_of_channels(thrust_kernel::norm_gradient_reader<T> gradient,
                                          T* partials) {
  __shared__ T shared[2][pixel_warps][warp_size];
  const int lane = threadIdx.x % warp_size;
  const int warp = threadIdx.x / warp_size;
  const index_t all = gradient.r.all();
  const index_t channel = index_t(blockIdx.x) * warp_size + lane;
  const index_t row = blockIdx.y;
  T with_xhat = 0;
  T plain = 0;
  if (channel < all)
    for (index_t pixel = warp; pixel < gradient.r.p.pixels; pixel += pixel_warps) {
      T xhat = 0;
      const T d = gradient.dz(row, pixel, channel, xhat);
      with_xhat += d * xhat;
      plain += d;
    }
  shared[0][warp][lane] = with_xhat;
  shared[1][warp][lane] = plain;
  __syncthreads();
  if (warp != 0 || channel >= all)
    return;
  for (int other = 1; other < pixel_warps; ++other) {
    with_xhat += shared[0][other][lane];
    plain += shared[1][other][lane];
  }
  partials[row * 2 * all + channel] = with_xhat;
  partials[row * 2 * all + all + channel] = plain;
}

/// Launches norm_apply_channels in blocks of 256 threads, as wide as the channels allow, each
/// thread with eight pixels.
template <class T, class Chunk>
void apply_norm(const norm_problem<T>& p) {
  constexpr int width = sizeof(Chunk) / sizeof(T);
  const index_t chunks = divide_up(p.all_channels(), width);
  const index_t across = chunks < 64 ? round_up(chunks, 8) : 64;
  const index_t down = 256 / across;
  const index_t run = 8 * down;
  cuda_launch("norm_apply", norm_apply_channels<T, Chunk>,
              grid(divide_up(chunks, across), divide_up(p.pixels, run), p.rows),
              dim3(unsigned(across), unsigned(down)), 0, thrust_kernel::norm_reader<T>{p}, run);
}

/// Whether rows are few and long enough for kernels with a row's own blocks; else the Thrust
/// backend's functors serve.
template <class T>
bool long_rows(const norm_problem<T>& p) {
  return p.pixels >= 16 && p.rows <= most_blocks;
}

}  // namespace cuda_kernel

/// Fills p.statistics, a block a group, in one pass over memory. @throws shape_error for a
/// group of 2^31 elements or more
template <class T>
void norm_statistics(const cuda&, const norm_problem<T>& p) {
  using namespace cuda_kernel;
  const index_t size = p.pixels * p.all_channels() / p.groups;
  require<shape_error>(size < (index_t{1} << 31), "group_norm: a group of ", size,
                       " elements; at most 2^31 on this backend");
  const int threads = size >= 8192 ? 512 : size >= 1024 ? 256 : warp_size;
  cuda_launch("norm_statistics", norm_statistics_of_group<T>, grid(p.rows * p.groups), threads,
              0, thrust_kernel::norm_reader<T>{p});
}

/// y from x and p.statistics, four channels a thread where operands are aligned for that.
template <class T>
void norm_apply(const cuda& b, const norm_problem<T>& p) {
  if (!cuda_kernel::long_rows(p))
    return norm_apply<cuda_system, T>(b, p);
  using chunk = cuda_kernel::four<T>;
  const bool wide =
      p.channels % 4 == 0 && p.channels2 % 4 == 0 && cuda_kernel::aligned(p.x, sizeof(chunk)) &&
      cuda_kernel::aligned(p.x2, sizeof(chunk)) && cuda_kernel::aligned(p.y, sizeof(chunk));
  wide ? cuda_kernel::apply_norm<T, chunk>(p) : cuda_kernel::apply_norm<T, T>(p);
}

/// The first step of norm_backward, which the Thrust backend goes on with.
template <class T>
void norm_partial_sums(const cuda& b,
                       const thrust_kernel::norm_gradient_reader<T>& gradient,
                       T* partials) {
  using namespace cuda_kernel;
  const norm_problem<T>& p = gradient.r.p;
  if (!long_rows(p))
    return norm_partial_sums<cuda_system, T>(b, gradient, partials);
  cuda_launch("norm_partials", norm_partials_of_channels<T>,
              grid(divide_up(p.all_channels(), warp_size), p.rows), pixel_warps * warp_size, 0,
              gradient, partials);
}

}  // namespace multistage

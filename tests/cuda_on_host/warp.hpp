// What the threads of a warp do together, and atomic operations.
#pragma once
#include <bit>
#include <cstdint>
#include <type_traits>

#include "arithmetic.hpp"
#include "block.hpp"

namespace emu {

/// Reports that a lane takes a value from one that does not take part.
void report_absent_lane(int line, uint32_t lane, uint32_t from);

enum class shuffle { up, down, bfly, idx };

/// shfl.sync: `ok` says whether the source lane lies within the segment that `c` describes.
template <shuffle Way>
inline uint32_t
shfl(thread& t, int line, uint32_t value, uint32_t b, uint32_t c, uint32_t mask, bool& ok) {
  exchange mine{};
  mine.in[0] = value;
  mine.in[1] = b;
  mine.in[2] = c;
  t.team->meet(t, line, mask, mine, [](lanes& all) {
    for (uint32_t lane = 0; lane < 32; ++lane) {
      exchange* const e = all.of[lane];
      if (!e)
        continue;
      const uint32_t step = e->in[1] & 31;
      const uint32_t segment = e->in[2] >> 8 & 31;
      const uint32_t last = (lane & segment) | (e->in[2] & 31 & ~segment);
      uint32_t from = 0;
      if constexpr (Way == shuffle::up) {
        from = lane - step;
        e->flag = int(from) >= int(last);
      } else {
        if constexpr (Way == shuffle::down)
          from = lane + step;
        if constexpr (Way == shuffle::bfly)
          from = lane ^ step;
        if constexpr (Way == shuffle::idx)
          from = (lane & segment) | (step & ~segment);
        e->flag = from <= last;
      }
      if (!e->flag)
        from = lane;
      if (!all.of[from])
        report_absent_lane(all.line, lane, from);
      e->out[0] = all.of[from] ? all.of[from]->in[0] : 0xffffffffu;
    }
  });
  ok = mine.flag;
  return mine.out[0];
}

/// vote.sync.ballot: a bit a lane of `mask` whose flag is true; `there` the lanes that took
/// part.
inline uint32_t ballot(thread& t, int line, bool flag, uint32_t mask, uint32_t& there) {
  exchange mine{};
  mine.flag_in = flag;
  t.team->meet(t, line, mask, mine, [](lanes& all) {
    uint32_t bits = 0;
    for (uint32_t lane = 0; lane < 32; ++lane)
      if (all.of[lane] && all.of[lane]->flag_in)
        bits |= 1u << lane;
    for (exchange* e : all.of)
      if (e)
        e->out[0] = bits, e->out[1] = all.mask;
  });
  there = mine.out[1];
  return mine.out[0];
}
inline uint32_t vote_ballot(thread& t, int line, bool flag, uint32_t mask) {
  uint32_t there = 0;
  return ballot(t, line, flag, mask, there);
}
inline bool vote_any(thread& t, int line, bool flag, uint32_t mask) {
  return vote_ballot(t, line, flag, mask) != 0;
}
inline bool vote_all(thread& t, int line, bool flag, uint32_t mask) {
  uint32_t there = 0;
  return ballot(t, line, flag, mask, there) == there;
}
inline bool vote_uni(thread& t, int line, bool flag, uint32_t mask) {
  uint32_t there = 0;
  const uint32_t bits = ballot(t, line, flag, mask, there);
  return bits == 0 || bits == there;
}

/// match.any.sync: the lanes that have this lane's value.
template <class T>
inline uint32_t match_any(thread& t, int line, T value, uint32_t mask) {
  exchange mine{};
  mine.in[0] = uint32_t(value);
  mine.in[1] = uint32_t(uint64_t(value) >> 32);
  t.team->meet(t, line, mask, mine, [](lanes& all) {
    for (exchange* e : all.of)
      for (uint32_t lane = 0; lane < 32; ++lane)
        if (e && all.of[lane] && all.of[lane]->in[0] == e->in[0] &&
            all.of[lane]->in[1] == e->in[1])
          e->out[0] |= 1u << lane;
  });
  return mine.out[0];
}

enum class reduction { add, min, max, and_, or_, xor_, exch, inc, dec };

/// One step of a reduction or atomic operation.
template <reduction R, class T>
inline T combine(T a, T b) {
  if constexpr (R == reduction::exch)
    return b;
  if constexpr (R == reduction::add) {
    if constexpr (std::is_floating_point_v<T>)
      return a + b;
    else
      return wrap_add(a, b);
  }
  if constexpr (R == reduction::min)
    return b < a ? b : a;
  if constexpr (R == reduction::max)
    return b > a ? b : a;
  if constexpr (std::is_integral_v<T>) {
    if constexpr (R == reduction::and_)
      return a & b;
    if constexpr (R == reduction::or_)
      return a | b;
    if constexpr (R == reduction::xor_)
      return a ^ b;
    if constexpr (R == reduction::inc)
      return a >= b ? T(0) : T(a + 1);
    if constexpr (R == reduction::dec)
      return a == 0 || a > b ? b : T(a - 1);
  }
  return a;
}

/// redux.sync
template <reduction R, class T>
inline T redux(thread& t, int line, T value, uint32_t mask) {
  exchange mine{};
  mine.in[0] = std::bit_cast<uint32_t>(value);
  t.team->meet(t, line, mask, mine, [](lanes& all) {
    bool first = true;
    T sum{};
    for (exchange* e : all.of)
      if (e) {
        const T v = std::bit_cast<T>(e->in[0]);
        sum = first ? v : combine<R>(sum, v);
        first = false;
      }
    for (exchange* e : all.of)
      if (e)
        e->out[0] = std::bit_cast<uint32_t>(sum);
  });
  return std::bit_cast<T>(mine.out[0]);
}

/// atom and red: returns what was there before.
template <int Space, reduction R, class T>
inline T atomic(thread& t, int line, uint64_t a, T value) {
  char* const p = t.atomic<Space, sizeof(T)>(a, line);
  T before;
  std::memcpy(&before, p, sizeof(T));
  const T after = combine<R>(before, value);
  std::memcpy(p, &after, sizeof(T));
  return before;
}
template <int Space, class T>
inline T atomic_cas(thread& t, int line, uint64_t a, T compare, T value) {
  char* const p = t.atomic<Space, sizeof(T)>(a, line);
  T before;
  std::memcpy(&before, p, sizeof(T));
  if (before == compare)
    std::memcpy(p, &value, sizeof(T));
  return before;
}

/// Operands of a matrix instruction: bits in registers to reals.
enum class element { tf32, f16, bf16 };

/// mma.sync.m16n8kK with sums in float. `a`: K/4 or K/8 pairs of registers as PTX lays them
/// out.
template <element E, int K, int A, int B>
inline void mma(thread& t,
                int line,
                const uint32_t (&a)[A],
                const uint32_t (&b)[B],
                const uint32_t (&c)[4],
                uint32_t (&d)[4]) {
  static_assert(A + B + 4 <= 12);
  exchange mine{};
  for (int i = 0; i < A; ++i)
    mine.in[i] = a[i];
  for (int i = 0; i < B; ++i)
    mine.in[A + i] = b[i];
  for (int i = 0; i < 4; ++i)
    mine.in[A + B + i] = c[i];
  t.team->meet(t, line, 0xffffffffu, mine, [](lanes& all) {
    constexpr int per = E == element::tf32 ? 1 : 2;  // elements a register
    constexpr int half = 4 * per;  // columns of A that a register of a group spans
    const auto value = [&](int lane, int reg, int part) -> double {
      const uint32_t w = all.of[lane] ? all.of[lane]->in[reg] : 0x7fc07fc0u;
      if constexpr (E == element::tf32)
        return std::bit_cast<float>(w & 0xffffe000u);
      const uint16_t h = uint16_t(w >> (16 * part));
      return E == element::f16 ? from_half(h) : from_bfloat(h);
    };
    if (all.mask != 0xffffffffu)
      report_absent_lane(all.line, 0, 0);
    double left[16][K];
    double right[K][8];
    for (int lane = 0; lane < 32; ++lane)
      for (int reg = 0; reg < A; ++reg)
        for (int p = 0; p < per; ++p)
          left[lane / 4 + 8 * (reg % 2)][lane % 4 * per + p + half * (reg / 2)] =
              value(lane, reg, p);
    for (int lane = 0; lane < 32; ++lane)
      for (int reg = 0; reg < B; ++reg)
        for (int p = 0; p < per; ++p)
          right[lane % 4 * per + p + half * reg][lane / 4] = value(lane, A + reg, p);
    for (int lane = 0; lane < 32; ++lane)
      for (int reg = 0; reg < 4; ++reg) {
        if (!all.of[lane])
          continue;
        const int row = lane / 4 + 8 * (reg / 2);
        const int column = lane % 4 * 2 + reg % 2;
        double sum = std::bit_cast<float>(all.of[lane]->in[A + B + reg]);
        for (int k = 0; k < K; ++k)
          sum += left[row][k] * right[k][column];
        all.of[lane]->out[reg] = std::bit_cast<uint32_t>(float(sum));
      }
  });
  for (int i = 0; i < 4; ++i)
    d[i] = mine.out[i];
}

/// ldmatrix.sync.m8n8.xN.shared.b16: lane 8 i + r gives the address of row r of matrix i.
template <int N, bool Transposed>
inline void ldmatrix(thread& t, int line, uint64_t address, uint32_t (&d)[N]) {
  exchange mine{};
  mine.in[0] = uint32_t(address);
  t.team->meet(t, line, 0xffffffffu, mine, [](lanes& all) {
    if (all.mask != 0xffffffffu)
      report_absent_lane(all.line, 0, 0);
    for (int i = 0; i < N; ++i) {
      uint16_t m[8][8] = {};
      for (int r = 0; r < 8; ++r)
        if (const exchange* e = all.of[8 * i + r])
          std::memcpy(m[r],
                      all.threads[8 * i + r]->load<shared_space, 4, 4>(e->in[0], all.line), 16);
      for (int lane = 0; lane < 32; ++lane) {
        if (!all.of[lane])
          continue;
        const int row = lane / 4;
        const int column = lane % 4 * 2;
        const uint16_t low = Transposed ? m[column][row] : m[row][column];
        const uint16_t high = Transposed ? m[column + 1][row] : m[row][column + 1];
        all.of[lane]->out[i] = uint32_t(high) << 16 | low;
      }
    }
  });
  for (int i = 0; i < N; ++i)
    d[i] = mine.out[i];
}

}  // namespace emu

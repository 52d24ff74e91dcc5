// The tensor library against plain loops and Eigen::Tensor: views of random extents and
// strides, expressions, reductions, aliasing, printing, and exchange with Eigen, spans and
// DLPack; on the CPU, on Eigen and on Thrust's host systems.
#include <multistage/backend/eigen/backend.hpp>
#include <multistage/backend/thrust/backend.hpp>
#include <multistage/backend/thrust/systems.hpp>
#include <multistage/interop/dlpack.hpp>
#include <multistage/interop/eigen.hpp>
#include <multistage/interop/eigen_tensor.hpp>
#include <multistage/tensor.hpp>
#include <sstream>

#include "catch.hpp"

namespace ms = multistage;

#if defined(_OPENMP) && \
    !defined(__SANITIZE_THREAD__)  // ThreadSanitizer does not see OpenMP's barriers
#define ALL_BACKENDS ms::cpu, ms::eigen, ms::thrust_cpp, ms::thrust_omp
#else
#define ALL_BACKENDS ms::cpu, ms::eigen, ms::thrust_cpp
#endif
#define BACKENDS ms::cpu, ms::eigen, ms::thrust_cpp

namespace {

using Catch::Contains;
using ms::index_t;

/// Whole numbers from a stream.
struct dice {
  ms::random_stream stream;
  std::uint64_t thrown = 0;
  index_t operator()(index_t least, index_t most) {
    return least + stream.below(thrown++, std::uint32_t(most - least + 1));
  }
};

template <class T>
std::vector<T> numbers(index_t n, dice& d) {
  std::vector<T> v(std::size_t(n), T{});
  for (index_t i = 0; i < n; ++i)
    v[std::size_t(i)] = std::is_floating_point_v<T> ? T(d(-1000, 1000)) / T(64) : T(d(-9, 9));
  return v;
}

/// A view [a, b, c] of a kind, over memory of its own, and its values by loops that know
/// nothing of strides.
template <class T, class Backend>
struct sample {
  ms::tensor<T, ms::rank<3>, Backend> memory;
  std::vector<T> values;
  ms::tensor_view<T, ms::rank<3>, Backend> view;
};
constexpr int writable_kinds = 5;
constexpr int kinds = 8;
template <class T, class Backend>
sample<T, Backend> make_sample(const Backend& b,
                               int kind,
                               index_t n0,
                               index_t n1,
                               index_t n2,
                               dice& d) {
  using tensor = ms::tensor<T, ms::rank<3>, Backend>;
  const auto filled = [&](index_t a, index_t e, index_t c) {
    return tensor(b, {a, e, c}, numbers<T>(a * e * c, d));
  };
  const auto made = [&](tensor m, auto&& look, auto&& value) {
    const std::vector<T> host = m.to_host();
    std::vector<T> values;
    for (index_t i = 0; i < n0; ++i)
      for (index_t j = 0; j < n1; ++j)
        for (index_t k = 0; k < n2; ++k)
          values.push_back(host[std::size_t(value(i, j, k))]);
    auto view = look(m);
    return sample<T, Backend>{std::move(m), std::move(values), view};
  };
  switch (kind) {
    case 0:
      return made(
          filled(n0, n1, n2), [](tensor& m) { return m.template slice<0>(0, m.extents()[0]); },
          [=](index_t i, index_t j, index_t k) { return (i * n1 + j) * n2 + k; });
    case 1:  // every second of axis 0, a part of axis 2
      return made(
          filled(2 * n0, n1, n2 + 3),
          [=](tensor& m) {
            return m.template slice<0>(0, 2 * n0, 2).template slice<2>(2, n2 + 2);
          },
          [=](index_t i, index_t j, index_t k) { return (2 * i * n1 + j) * (n2 + 3) + k + 2; });
    case 2:
      return made(
          filled(n1, n2, n0), [](tensor& m) { return m.template permute<2, 0, 1>(); },
          [=](index_t i, index_t j, index_t k) { return (j * n2 + k) * n0 + i; });
    case 3:
      return made(
          filled(n0, n1, n2),
          [](tensor& m) { return m.template reverse<1>().template reverse<2>(); },
          [=](index_t i, index_t j, index_t k) {
            return (i * n1 + n1 - 1 - j) * n2 + n2 - 1 - k;
          });
    case 4:
      return made(
          filled(n2, n1, n0),
          [](tensor& m) { return m.transpose().template slice<0>(0, m.extents()[2]); },
          [=](index_t i, index_t j, index_t k) { return (k * n1 + j) * n0 + i; });
    case 5:
      return made(
          filled(1, n1, 1),
          [=](tensor& m) {
            return m.broadcast({n0, n1, n2});
          },
          [=](index_t, index_t j, index_t) { return j; });
    case 6:
      return made(
          filled(1, 1, n2),
          [=](tensor& m) {
            return m.template at<0>(0).template at<0>(0).broadcast({n0, n1, n2});
          },
          [=](index_t, index_t, index_t k) { return k; });
    default:
      return made(
          filled(n0, 1, 1),
          [=](tensor& m) {
            return m.broadcast({n0, n1, n2});
          },
          [=](index_t i, index_t, index_t) { return i; });
  }
}

}  // namespace

TEMPLATE_TEST_CASE("expressions over views of random extents and strides are what loops give",
                   "",
                   ALL_BACKENDS) {
  TestType b;
  dice d{ms::random_stream(5)};
  for (int round = 0; round < 150; ++round) {
    const bool large = round % 25 == 0;  // beyond one piece and one task
    const index_t n0 = d(1, large ? 40 : 5);
    const index_t n1 = d(1, large ? 30 : 5);
    const index_t n2 = d(1, large ? 50 : 5);
    const int ka = int(d(0, kinds - 1));
    const int kb = int(d(0, kinds - 1));
    const int kc = int(d(0, kinds - 1));
    const int kt = int(d(0, writable_kinds - 1));
    INFO("round " << round << ": [" << n0 << ", " << n1 << ", " << n2 << "], kinds " << ka
                  << ' ' << kb << ' ' << kc << " -> " << kt);
    const auto p = make_sample<double>(b, ka, n0, n1, n2, d);
    const auto q = make_sample<double>(b, kb, n0, n1, n2, d);
    const auto r = make_sample<double>(b, kc, n0, n1, n2, d);
    auto to = make_sample<double>(b, kt, n0, n1, n2, d);
    const auto f = [](double x, double y, double z) {
      return 0.5 * x + y * z - std::max(x, y) / (2 + z * z) + (x < z ? 1.0 : y);
    };
    std::vector<double> want;
    for (std::size_t i = 0; i < p.values.size(); ++i)
      want.push_back(f(p.values[i], q.values[i], r.values[i]));
    const auto e = 0.5 * p.view + q.view * r.view -
                   ms::maximum(p.view, q.view) / (2 + r.view * r.view) +
                   ms::where(p.view < r.view, 1.0, q.view);
    const ms::tensor<double, ms::rank<3>, TestType> fresh = e;
    CHECK(fresh.to_host() == want);
    to.view = e;
    REQUIRE(to.view.to_host() == want);
    to.view += p.view;
    for (std::size_t i = 0; i < want.size(); ++i)
      want[i] += p.values[i];
    REQUIRE(to.view.to_host() == want);
  }
}

TEMPLATE_TEST_CASE("writing through a view leaves what lies between its elements",
                   "",
                   BACKENDS) {
  TestType b;
  ms::tensor<float, ms::rank<2>, TestType> x(b, {4, 6});
  x.template slice<0>(1, 4, 2).template slice<1>(0, 6, 3) = 7;
  CHECK(x.to_host() == std::vector<float>{0, 0, 0, 0, 0, 0, 7, 0, 0, 7, 0, 0,
                                          0, 0, 0, 0, 0, 0, 7, 0, 0, 7, 0, 0});
  // The reports' cases: one channel of three is filled and summed.
  ms::tensor<float, TestType> image(b, {1, 2, 2, 3},
                                    std::vector<float>{1, 50, 9, 2, 50, 9, 3, 50, 9, 0, 50, 9});
  CHECK(ms::sum(image.template slice<3>(0, 1)) == 6);
  image.template slice<3>(1, 2) = 0.5f;
  CHECK(image.to_host() == std::vector<float>{1, .5f, 9, 2, .5f, 9, 3, .5f, 9, 0, .5f, 9});
}

TEMPLATE_TEST_CASE("an expression may read what it is assigned to", "", BACKENDS) {
  TestType b;
  dice d{ms::random_stream(6)};
  for (const index_t n : {3, 40}) {
    const std::vector<double> start = numbers<double>(n * n, d);
    const auto fresh = [&] {
      return ms::tensor<double, ms::rank<2>, TestType>(b, {n, n}, start);
    };
    const auto at = [&](index_t i, index_t j) {
      return start[std::size_t(i * n + j)];
    };
    const auto check = [&](const auto& got, auto&& want) {
      const std::vector<double> host = got.to_host();
      for (index_t i = 0; i < n; ++i)
        for (index_t j = 0; j < n; ++j)
          REQUIRE(host[std::size_t(i * n + j)] == want(i, j));
    };
    auto x = fresh();
    x = x + x.template permute<1, 0>();
    check(x, [&](index_t i, index_t j) { return at(i, j) + at(j, i); });
    x = fresh();
    x = x.transpose();
    check(x, [&](index_t i, index_t j) { return at(j, i); });
    x = fresh();
    x.template slice<0>(1, n) = x.template slice<0>(0, n - 1);
    check(x, [&](index_t i, index_t j) { return at(std::max<index_t>(i - 1, 0), j); });
    x = fresh();
    x += x.template reverse<1>();
    check(x, [&](index_t i, index_t j) { return at(i, j) + at(i, n - 1 - j); });
    x = fresh();
    x -= x.template slice<0>(0, 1);  // the first row is read for all, and becomes 0
    check(x, [&](index_t i, index_t j) { return at(i, j) - at(0, j); });
    x = fresh();
    x = 2 * x - x * x;
    check(x, [&](index_t i, index_t j) { return 2 * at(i, j) - at(i, j) * at(i, j); });
  }
}

namespace {

template <class Op>
std::vector<double> loops(const std::vector<double>& v,
                          const index_t (&n)[3],
                          const bool (&over)[3],
                          Op&& op) {
  std::vector<double> out;
  const index_t k0 = over[0] ? 1 : n[0];
  const index_t k1 = over[1] ? 1 : n[1];
  const index_t k2 = over[2] ? 1 : n[2];
  for (index_t i = 0; i < k0; ++i)
    for (index_t j = 0; j < k1; ++j)
      for (index_t k = 0; k < k2; ++k) {
        std::vector<double> some;
        for (index_t p = over[0] ? 0 : i; p < (over[0] ? n[0] : i + 1); ++p)
          for (index_t q = over[1] ? 0 : j; q < (over[1] ? n[1] : j + 1); ++q)
            for (index_t r = over[2] ? 0 : k; r < (over[2] ? n[2] : k + 1); ++r)
              some.push_back(v[std::size_t((p * n[1] + q) * n[2] + r)]);
        out.push_back(op(some));
      }
  return out;
}
double total(const std::vector<double>& v) {
  double s = 0;
  for (const double x : v)
    s += x;
  return s;
}
template <class Tensor>
std::vector<double> doubles(const Tensor& t) {
  const auto host = t.to_host();
  return {host.begin(), host.end()};
}

template <class View, class Axes>
void check_reductions(const View& x,
                      const std::vector<double>& values,
                      const index_t (&n)[3],
                      const bool (&over)[3],
                      const Axes& axes) {
  // Values are whole 64ths below 16 and so are added without rounding.
  CHECK(doubles(ms::sum(x, axes)) == loops(values, n, over, total));
  CHECK(doubles(ms::max(x, axes)) == loops(values, n, over, [](const auto& v) {
          return *std::max_element(v.begin(), v.end());
        }));
  CHECK(doubles(ms::min(x, axes)) == loops(values, n, over, [](const auto& v) {
          return *std::min_element(v.begin(), v.end());
        }));
  CHECK(doubles(ms::argmax(x, axes)) == loops(values, n, over, [](const auto& v) {
          return double(std::max_element(v.begin(), v.end()) - v.begin());
        }));
  CHECK(doubles(ms::argmin(x, axes)) == loops(values, n, over, [](const auto& v) {
          return double(std::min_element(v.begin(), v.end()) - v.begin());
        }));
  const std::vector<double> mean = doubles(ms::mean(x, axes)),
                            norm = doubles(ms::norm(x, axes)),
                            want_mean =
                                loops(values, n, over,
                                      [](const auto&v) { return total(v) / double(v.size()); }),
                            want_norm = loops(values, n, over, [](const auto&v) {
                              double s = 0;
                              for (const double e : v)
                                s += e * e;
                              return std::sqrt(s);
                            });
  for (std::size_t i = 0; i < mean.size(); ++i) {
    CHECK(mean[i] == Approx(want_mean[i]).epsilon(1e-6));
    CHECK(norm[i] == Approx(want_norm[i]).epsilon(1e-6));
  }
  const auto kept = ms::sum(x, axes, ms::keep);
  for (int k = 0; k < 3; ++k)
    CHECK(kept.extents()[k] == (over[k] ? 1 : n[k]));
  CHECK(doubles(kept) == doubles(ms::sum(x, axes)));
}

template <class T, class Backend>
void reduce_samples(std::uint64_t key, int rounds) {
  Backend b;
  dice d{ms::random_stream(key)};
  for (int round = 0; round < rounds; ++round) {
    const bool large = round % 20 == 0;  // beyond one part
    const index_t n[3] = {d(1, large ? 130 : 5), d(1, large ? 9 : 5), d(1, large ? 70 : 6)};
    const int kind = int(d(0, kinds - 1));
    INFO("round " << round << ": [" << n[0] << ", " << n[1] << ", " << n[2] << "], kind "
                  << kind);
    const auto s = make_sample<T>(b, kind, n[0], n[1], n[2], d);
    const std::vector<double> v(s.values.begin(), s.values.end());
    check_reductions(s.view, v, n, {true, false, false}, ms::axes{0});
    check_reductions(s.view, v, n, {false, true, false}, ms::axes{1});
    check_reductions(s.view, v, n, {false, false, true}, ms::axes{-1});
    check_reductions(s.view, v, n, {true, true, false}, ms::axes{0, 1});
    check_reductions(s.view, v, n, {true, false, true}, ms::axes{2, 0});
    check_reductions(s.view, v, n, {true, true, true}, ms::axes{0, 1, 2});
    CHECK(double(ms::sum(s.view)) == total(v));
    CHECK(double(ms::max(s.view)) == *std::max_element(v.begin(), v.end()));
    CHECK(ms::argmin(s.view) == std::min_element(v.begin(), v.end()) - v.begin());
    CHECK(ms::mean(s.view) == Approx(total(v) / double(v.size())));
  }
}

}  // namespace

TEMPLATE_TEST_CASE("reductions over any axes of any view are what loops give", "", BACKENDS) {
  reduce_samples<float, TestType>(7, 60);
  reduce_samples<double, TestType>(8, 21);
  reduce_samples<std::int64_t, TestType>(9, 10);
}

TEMPLATE_TEST_CASE("reductions of an expression, of nothing, and of NaN", "", BACKENDS) {
  TestType b;
  const ms::tensor<float, ms::rank<2>, TestType> x(b, {2, 3},
                                                   std::vector<float>{1, 2, 3, -4, 5, NAN}),
      none(b, {0, 3});
  CHECK(ms::sum(2 * x.template slice<1>(0, 2)) == 8);
  CHECK(std::isnan(ms::sum(x)));
  CHECK(std::isnan(ms::max(x)));
  CHECK(ms::argmax(x) == 5);
  CHECK(ms::argmin(x) == 5);
  CHECK(ms::argmax(x, ms::axes{1}).to_host() == std::vector<index_t>{2, 2});
  CHECK(ms::sum(none) == 0);
  CHECK(ms::sum(none, ms::axes{0}).to_host() == std::vector<float>{0, 0, 0});
  CHECK(ms::sum(none, ms::axes{1}).size() == 0);
  CHECK_THROWS_WITH(ms::max(none), Contains("nothing"));
  CHECK_THROWS_AS(ms::mean(none, ms::axes{0}), ms::shape_error);
  CHECK_THROWS_AS(ms::sum(x, ms::axes{2}), ms::value_error);
  CHECK_THROWS_AS(ms::sum(x, ms::axes{0, -2}), ms::value_error);
  const auto centred = ms::eval(x - ms::mean(x, ms::axes{1}, ms::keep));
  CHECK(centred(0, 0) == -1);
}

TEMPLATE_TEST_CASE(
    "types: C++'s own rules, numbers beside floating-point operands take their type",
    "",
    BACKENDS) {
  TestType b;
  const ms::tensor<std::uint8_t, ms::rank<1>, TestType> bytes(
      b, {3}, std::vector<std::uint8_t>{1, 200, 255});
  const ms::tensor<float, ms::rank<1>, TestType> x(b, {3}, std::vector<float>{0.5f, -1, 3});
  const auto twice = ms::eval(bytes + bytes);
  CHECK(twice.to_host() == std::vector<int>{2, 400, 510});
  CHECK(ms::sum(bytes) == 456);
  CHECK(ms::eval(bytes / 255.0).to_host() == std::vector<double>{1 / 255.0, 200 / 255.0, 1});
  static_assert(std::is_same_v<typename decltype(ms::eval(0.1 * x))::value_type, float>);
  static_assert(std::is_same_v<typename decltype(ms::eval(x / 3))::value_type, float>);
  static_assert(std::is_same_v<typename decltype(ms::eval(x > 0))::value_type, bool>);
  CHECK(ms::eval(x / 3)(2) == 1.0f);
  const auto positive = ms::eval(x > 0);
  CHECK(positive.to_host() == std::vector<bool>{true, false, true});
  CHECK(ms::sum(positive) == 2);
  CHECK(ms::eval(positive && !ms::equal(x, 3)).to_host() ==
        std::vector<bool>{true, false, false});
  ms::tensor<std::int64_t, ms::rank<1>, TestType> whole = ms::cast<std::int64_t>(x * 4);
  CHECK(whole.to_host() == std::vector<std::int64_t>{2, -4, 12});
  whole = whole % 5 - 1;
  CHECK(whole.to_host() == std::vector<std::int64_t>{1, -5, 1});
  const ms::tensor<double, ms::rank<1>, TestType> precise = x + ms::cast<double>(bytes);
  CHECK(precise.to_host() == std::vector<double>{1.5, 199, 258});
  const std::vector<float> nan{NAN, 1, 2};
  const ms::tensor<float, ms::rank<1>, TestType> with_nan(b, {3}, nan);
  CHECK(ms::sum(ms::isfinite(ms::maximum(with_nan, x))) == 2);
  CHECK(ms::sum(ms::isfinite(ms::minimum(x, with_nan))) == 2);
  CHECK(ms::eval(ms::clamp(x, 0, 1)).to_host() == std::vector<float>{0.5f, 0, 1});
}

TEST_CASE("half and bfloat16 are stored, and computed as float") {
  const ms::tensor<float, ms::rank<1>> x({4}, {0.1f, 1, 65504, -2.5f});
  const auto check = [&]<class Stored>(Stored) {
    const ms::tensor<Stored, ms::rank<1>> stored = x;
    const auto twice = ms::eval(2 * stored);
    static_assert(std::is_same_v<typename decltype(twice)::value_type, float>);
    for (int i = 0; i < 4; ++i) {
      CHECK(stored(i) == Stored(x(i)));  // rounded as Eigen rounds
      CHECK(twice(i) == 2 * float(Stored(x(i))));
    }
    CHECK(ms::max(stored) == float(Stored(65504.0f)));
    CHECK(ms::sum(stored.template slice<0>(1, 2)) == 1);
  };
  check(ms::half());
  check(ms::bfloat16());
}

TEMPLATE_TEST_CASE("reshape is a view where strides allow it, and refused where not",
                   "",
                   BACKENDS) {
  TestType b;
  const auto x = ms::iota<int>(24, 0, 1, b).reshape({2, 3, 4}).copy();
  CHECK(x.reshape({4, ms::dynamic}).to_host() == x.to_host());
  CHECK(x.reshape({4, ms::dynamic}).extents() == ms::extents(4, 6));
  CHECK(x.reshape({1, 24, 1}).data() == x.data());
  const auto part =
      x.template slice<2>(0, 4, 2);  // strides 12, 4, 2: axes 0 and 1 and 2 lie as one
  CHECK(part.reshape({12}).to_host() == part.to_host());
  CHECK(part.reshape({3, 4}).to_host() == part.to_host());
  const auto front = x.template slice<1>(0, 2);  // axis 0 jumps
  CHECK(front.reshape({2, 8}).to_host() == front.to_host());
  CHECK(front.reshape({2, 2, 2, 2}).to_host() == front.to_host());
  CHECK_THROWS_WITH(front.reshape({4, 4}).reshape({16}), Contains("copy()"));
  CHECK_THROWS_WITH(x.transpose().reshape({24}), Contains("copy()"));
  CHECK_THROWS_AS(x.reshape({5, 5}), ms::shape_error);
  CHECK_THROWS_AS(x.reshape({ms::dynamic, ms::dynamic}), ms::shape_error);
  CHECK_THROWS_AS(x.reshape({ms::dynamic, 7}), ms::shape_error);
  // Any view that may be reshaped has the elements of its copy.
  dice d{ms::random_stream(10)};
  int views = 0;
  for (int round = 0; round < 200; ++round) {
    const index_t n0 = d(1, 4);
    const index_t n1 = d(1, 4);
    const index_t n2 = d(1, 4);
    const auto s = make_sample<int>(b, int(d(0, kinds - 1)), n0, n1, n2, d);
    const index_t cut = d(1, 4);
    if (s.view.size() % cut)
      continue;
    try {
      const auto other = s.view.reshape({s.view.size() / cut, cut});
      CHECK(other.to_host() == s.values);
      ++views;
    } catch (const ms::shape_error&) {
    }
  }
  CHECK(views > 50);
}

TEST_CASE("what does not fit is refused with the operand, its extents and those expected") {
  CHECK_THROWS_AS(ms::zeros<float>({4, 4}).reshape({-4, -4}), ms::shape_error);
  ms::tensor<float, ms::rank<2>> x({3, 4}), y({4, 3}), z({3, 4});
  const ms::tensor<float, ms::rank<1>> four({4}), three({3});
  CHECK_THROWS_WITH(ms::eval(x + y), Contains("[4, 3]") && Contains("axis"));
  CHECK_NOTHROW(ms::eval(x + four));
  CHECK_THROWS_AS(ms::eval(x + three), ms::shape_error);
  CHECK_NOTHROW(ms::eval(x + three.expand<1>()));
  CHECK_THROWS_WITH((x.slice<0>(0, 2) = four.slice<0>(0, 3)),
                    Contains("[3]") && Contains("[2, 4]"));
  CHECK_THROWS_AS((x += y), ms::shape_error);
  CHECK_THROWS_AS((x.slice<0>(1, 2) += z), ms::shape_error);  // does not grow
  CHECK_THROWS_WITH(x.slice<1>(2, 5), Contains("[2, 5)") && Contains("[3, 4]"));
  CHECK_THROWS_AS(x.slice<0>(2, 1), ms::shape_error);
  CHECK_THROWS_AS(x.slice<0>(0, 2, 0), ms::shape_error);
  CHECK_THROWS_AS(x.at<0>(3), ms::shape_error);
  CHECK_THROWS_AS(x(0, 4), ms::value_error);
  CHECK_THROWS_AS(x(-1, 0), ms::value_error);
  CHECK_THROWS_AS(x.broadcast({3, 5}), ms::shape_error);
  CHECK_THROWS_WITH(std::as_const(x).slice<0>(0, 1).broadcast({3, 4}).transpose().span(),
                    Contains("copy()"));
  std::vector<float> memory(4);
  auto repeated = ms::wrap(memory.data(), {3, 4}, {0, 1});
  CHECK_THROWS_WITH((repeated = 1), Contains("repeated"));
  CHECK_THROWS_AS(ms::wrap(memory, {3}), ms::shape_error);
  using fixed = ms::tensor<float, ms::extents<2, ms::dynamic>>;
  CHECK_THROWS_WITH(fixed({3, 4}), Contains("axis 0"));
  CHECK_THROWS_AS(fixed(x), ms::shape_error);
  CHECK_NOTHROW(fixed(x.slice<0>(0, 2)));
  CHECK_THROWS_AS((ms::tensor<float, ms::rank<1>>({-1})), ms::shape_error);
}

TEST_CASE("extents known to the compiler stay known") {
  using image = ms::extents<2, ms::dynamic, 8>;
  const ms::tensor<float, image> x({2, 5, 8});
  const ms::tensor<float, ms::extents<8>> bias = ms::tensor<float, ms::extents<8>>({8});
  const auto y = ms::eval(x + bias);
  static_assert(std::is_same_v<decltype(y)::extents_type, image>);
  static_assert(decltype(x.permute<2, 0, 1>())::extents_type::static_extent(0) == 8);
  static_assert(decltype(x.at<1>(0))::extents_type::static_extent(1) == 8);
  static_assert(decltype(x.slice<2>(0, 4))::extents_type::static_extent(2) == ms::dynamic);
  static_assert(std::is_same_v<ms::tensor<float>, ms::tensor<float, ms::rank<4>>> &&
                std::is_same_v<ms::tensor<float>, ms::tensor<float, ms::cpu>>);
  CHECK(y.extents() == ms::extents(2, 5, 8));
  const ms::tensor<float, ms::rank<0>> one = ms::tensor<float, ms::rank<0>>(ms::extents<>());
  CHECK(one() == 0);
  CHECK(ms::eval(one + 2)() == 2);
}

TEST_CASE("printing") {
  const auto text = [](const auto& x) {
    std::ostringstream out;
    out << x;
    return out.str();
  };
  CHECK(text(ms::iota<int>(3)) == "[0, 1, 2]");
  CHECK(text(ms::iota<int>(6).reshape({2, 3})) == "[[0, 1, 2],\n [3, 4, 5]]");
  CHECK(text(ms::iota<float>(8, 0.5f).reshape({2, 2, 2})) ==
        "[[[0.5, 1.5],\n  [2.5, 3.5]],\n\n [[4.5, 5.5],\n  [6.5, 7.5]]]");
  CHECK(text(ms::iota<int>(2000)) == "[0, 1, 2, ..., 1997, 1998, 1999]");
  CHECK(text(ms::iota<int>(2000).reshape({2, 1000})) ==
        "[[0, 1, 2, ..., 997, 998, 999],\n [1000, 1001, 1002, ..., 1997, 1998, 1999]]");
  const ms::tensor<std::uint8_t, ms::rank<1>> bytes({2}, {7, 65});
  CHECK(text(bytes) == "[7, 65]");
  CHECK(text(bytes > 7) == "[false, true]");
  CHECK(text(2 * bytes) == "[14, 130]");
  CHECK(text(ms::tensor<float, ms::rank<2>>({0, 3})) == "[]");
  CHECK(text(ms::shape{2, 8, 8, 3}) == "[2, 8, 8, 3]");
}

TEMPLATE_TEST_CASE("tensors move between backends, and random numbers are the same on all",
                   "",
                   BACKENDS) {
  TestType b;
  const auto here = ms::normal<float>({3, 5, 7}, ms::random_stream(3, 4));
  const auto there = ms::normal<float>({3, 5, 7}, ms::random_stream(3, 4), b);
  CHECK(here.to_host() == there.to_host());
  CHECK(here(0, 0, 3) == float(ms::random_stream(3, 4).normal(3)));
  const auto moved = here.template permute<2, 0, 1>().to(b);
  CHECK(moved.extents() == ms::extents(7, 3, 5));
  CHECK(moved.to_host() == here.template permute<2, 0, 1>().to_host());
  CHECK(moved.to(ms::cpu()).to_host() == moved.to_host());
  const auto uniform = ms::uniform<double>({1000}, ms::random_stream(1), b);
  CHECK(ms::min(uniform) > 0);
  CHECK(ms::max(uniform) < 1);
  CHECK(uniform.to_host()[5] == ms::random_stream(1).uniform(5));
}

TEST_CASE("an expression keeps tensors that have no name, and looks at those that have") {
  auto x = ms::normal<float>({100}, ms::random_stream(1));
  const float before = x(7);
  auto kept = ms::normal<float>({100}, ms::random_stream(1)) * 2 +
              x;  // the first operand is gone after this line
  x = 1;
  CHECK(ms::eval(kept)(7) == before * 2 + 1);
}

TEST_CASE("a view of a tensor that has no name keeps it") {
  const auto seen =
      ms::normal<float>({100, 3}, ms::random_stream(1)).slice<0>(10, 90).transpose();
  const auto other =
      ms::full<float>({100, 3}, 5);  // what takes memory that was given back too early
  const auto again = ms::normal<float>({100, 3}, ms::random_stream(1));
  CHECK(seen(2, 7) == again(17, 2));
  CHECK(ms::eval(seen + 0.0f)(2, 7) == again(17, 2));
  CHECK(other(0, 0) == 5);
}

TEST_CASE("an empty tensor says that it is empty, and so does one that was moved from") {
  ms::tensor<float, ms::rank<1>> none;
  CHECK(none.size() == 0);
  CHECK(none.to_host().empty());
  CHECK_THROWS_AS(ms::eval(none + 1), ms::value_error);
  CHECK_THROWS_AS((none = 1), ms::value_error);
  auto x = ms::iota<float>(5);
  const auto y = std::move(x);
  CHECK(y(4) == 4);
  CHECK(x.size() == 0);
  CHECK_THROWS_AS(ms::sum(x), ms::value_error);
  x = 2 * y;  // and may be used again
  CHECK(x(4) == 8);
}

TEST_CASE("memory of yours is seen, never copied") {
  std::vector<float> mine{1, 2, 3, 4, 5, 6};
  auto x = ms::wrap(mine, {2, 3});
  CHECK(x.data() == mine.data());
  x = x + x;
  CHECK(mine == std::vector<float>{2, 4, 6, 8, 10, 12});
  const std::vector<float>& constant = mine;
  static_assert(std::is_const_v<decltype(ms::wrap(constant, {6}))::element_type>);
  std::span<float> some = x.slice<0>(1, 2).span();
  CHECK(some.data() == mine.data() + 3);
  const ms::tensor<float, ms::rank<2>> own = x;
  CHECK(own.data() != mine.data());
}

TEST_CASE("to and from Eigen without copies") {
  auto x = ms::normal<float>({4, 6}, ms::random_stream(1));
  auto m = ms::as_eigen(x);
  CHECK(m.data() == x.data());
  CHECK(m(2, 3) == x(2, 3));
  m(2, 3) = 5;
  CHECK(x(2, 3) == 5);
  const auto view = std::as_const(x).transpose().slice<0>(1, 6, 2).reverse<1>();
  const auto e = ms::as_eigen(view);
  REQUIRE(e.rows() == 3);
  REQUIRE(e.cols() == 4);
  for (int i = 0; i < 3; ++i)
    for (int j = 0; j < 4; ++j)
      CHECK(e(i, j) == x(3 - j, 1 + 2 * i));
  const Eigen::MatrixXf product =
      ms::as_eigen(x.reshape({4, 6})) * Eigen::MatrixXf::Identity(6, 2);
  CHECK(product(3, 1) == x(3, 1));
  CHECK(ms::as_eigen(x.at<1>(2)).sum() == Approx(ms::sum(x.at<1>(2))));
  Eigen::MatrixXd by_columns = Eigen::MatrixXd::Random(3, 5);
  auto seen = ms::from_eigen(by_columns);
  CHECK(seen.data() == by_columns.data());
  for (int i = 0; i < 3; ++i)
    for (int j = 0; j < 5; ++j)
      CHECK(seen(i, j) == by_columns(i, j));
  seen = 2 * seen;
  const Eigen::MatrixXd& constant = by_columns;
  static_assert(std::is_const_v<decltype(ms::from_eigen(constant))::element_type>);
  Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor> by_rows =
      Eigen::MatrixXf::Random(3, 5);
  auto block = by_rows.block(1, 2, 2, 3);
  CHECK(ms::from_eigen(block)(1, 2) == by_rows(2, 4));
  Eigen::VectorXf vector = Eigen::VectorXf::Random(7);
  CHECK(ms::sum(ms::from_eigen(vector)) == Approx(vector.sum()));
  const ms::tensor<float, ms::extents<3, 2>> fixed({3, 2}, {1, 2, 3, 4, 5, 6});
  static_assert(decltype(ms::as_eigen(fixed))::RowsAtCompileTime == 3);
  CHECK(ms::as_eigen(fixed)(2, 0) == 5);
}

TEST_CASE("expressions and reductions equal Eigen::Tensor's") {
  const auto a = ms::normal<double>({5, 4, 3, 6}, ms::random_stream(1));
  const auto b = ms::normal<double>({5, 4, 3, 6}, ms::random_stream(2));
  const auto ea = ms::as_eigen_tensor(a);
  const auto eb = ms::as_eigen_tensor(b);
  CHECK(ea.data() == a.data());
  const Eigen::Tensor<double, 4, Eigen::RowMajor> want =
      (ea * 0.5 + eb.shuffle(std::array<int, 4>{0, 1, 2, 3}).exp() - (ea * eb)).eval();
  const ms::tensor<double> got = 0.5 * a + ms::exp(b) - a * b;
  for (index_t i = 0; i < got.size(); ++i)
    CHECK(got.data()[i] == Approx(want.data()[i]).epsilon(1e-14));
  const Eigen::Tensor<double, 2, Eigen::RowMajor> sums = ea.sum(std::array<int, 2>{0, 2});
  const auto own = ms::sum(a, ms::axes{0, 2});
  CHECK(ms::norm(ms::from_eigen_tensor(sums) - own) < 1e-13);
  Eigen::Tensor<float, 3> by_columns(2, 3, 4);
  by_columns.setRandom();
  auto seen = ms::from_eigen_tensor(by_columns);
  for (int i = 0; i < 2; ++i)
    for (int j = 0; j < 3; ++j)
      for (int k = 0; k < 4; ++k)
        CHECK(seen(i, j, k) == by_columns(i, j, k));
  seen = 1;
  CHECK(by_columns(1, 2, 3) == 1);
  CHECK_THROWS_AS(ms::as_eigen_tensor(a.transpose()), ms::shape_error);
}

TEST_CASE("DLPack: handed over, taken, freed once") {
  namespace dl = ms::dlpack;
  auto x = ms::normal<float>({2, 3, 4}, ms::random_stream(1));
  const float* const data = x.data();
  const float value = x(1, 2, 3);
  dl::pointer given = dl::give(std::move(x));
  const dl::described& t = given->tensor;
  CHECK(t.data == data);
  CHECK((t.axes == 3 && t.extents[0] == 2 && t.extents[2] == 4 && t.strides[0] == 12 &&
         t.strides[2] == 1));
  CHECK((t.type == dl::data_type{dl::type_code::floating, 32, 1}));
  CHECK(t.device.kind == dl::device_kind::cpu);
  auto taken = dl::take<float, 3>(t);
  CHECK(taken(1, 2, 3) == value);
  CHECK_THROWS_AS((dl::take<double, 3>(t)), ms::value_error);
  CHECK_THROWS_AS((dl::take<float, 2>(t)), ms::value_error);
  std::int64_t extents[] = {3, 2};
  std::int64_t strides[] = {1, 3};
  std::vector<std::int64_t> foreign{1, 2, 3, 4, 5, 6};
  dl::described other{.data = foreign.data(),
                      .device = {},
                      .axes = 2,
                      .type = {dl::type_code::integer, 64, 1},
                      .extents = extents,
                      .strides = strides,
                      .byte_offset = 0};
  CHECK(dl::take<std::int64_t, 2>(other).to_host() ==
        std::vector<std::int64_t>{1, 4, 2, 5, 3, 6});
  other.strides = nullptr;
  other.extents[0] = 2;
  other.byte_offset = 16;
  CHECK(dl::take<std::int64_t, 2>(other).to_host() == std::vector<std::int64_t>{3, 4, 5, 6});
  other.byte_offset = 3;
  CHECK_THROWS_AS((dl::take<std::int64_t, 2>(other)), ms::value_error);
  other.device.kind = dl::device_kind::cuda;
  CHECK_THROWS_AS((dl::take<std::int64_t, 2>(other)), ms::value_error);
}

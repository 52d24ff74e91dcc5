// Exponential integrators with polynomials: over noise over signal the probability-flow ODE is
// dx = eps dsigma, and eps is Lagrange's polynomial through its values at some levels, in a
// variable of one's choice (sigma, ln sigma, a schedule's t):
//   x' = x + sum_j eps_j int_sigma^sigma' L_j dsigma.
#pragma once
#include <array>
#include <cmath>
#include <vector>

namespace multistage::sampling {

/// int L_j dsigma from one level to another for the polynomials through the first k of the
/// levels `at`; the rest is 0. `variable(sigma)` is what they are polynomials in. By Gauss's
/// rule of twelve points in ln sigma on four pieces: the integrands are analytic.
template <int Most, class Variable>
std::array<double, Most> lagrange_integrals(Variable&& variable,
                                            const std::vector<double>& at,
                                            int k,
                                            double from,
                                            double to) {
  static constexpr double points[6] = {0.1252334085114689, 0.3678314989981802,
                                       0.5873179542866175, 0.7699026741943047,
                                       0.9041172563704749, 0.9815606342467193};
  static constexpr double shares[6] = {0.2491470458134028, 0.2334925365383548,
                                       0.2031674267230659, 0.1600783285433462,
                                       0.1069393259953184, 0.0471753363865118};
  std::array<double, Most> c{};
  std::array<double, Most> nodes{};
  if (k == 1) {
    c[0] = to - from;
    return c;
  }
  for (int j = 0; j < k; ++j)
    nodes[std::size_t(j)] = variable(at[std::size_t(j)]);
  constexpr int pieces = 4;
  const double whole = std::log(to) - std::log(from);
  for (int piece = 0; piece < pieces; ++piece)
    for (int p = 0; p < 12; ++p) {
      const double u = p < 6 ? points[p] : -points[p - 6];
      const double share = shares[p % 6];
      const double middle = std::log(from) + (piece + 0.5) / pieces * whole;
      const double half = whole / pieces / 2;
      const double sigma = std::exp(middle + half * u);
      const double v = variable(sigma);
      for (int j = 0; j < k; ++j) {
        double l = 1;
        for (int m = 0; m < k; ++m)
          if (m != j)
            l *= (v - nodes[std::size_t(m)]) / (nodes[std::size_t(j)] - nodes[std::size_t(m)]);
        c[std::size_t(j)] += share * half * sigma * l;
      }
    }
  return c;
}

}  // namespace multistage::sampling

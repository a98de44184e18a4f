// Positions that are formulas of a few numbers a pixel: sums of a table's terms, and, of the radial rule, an exponent.
#pragma once
#include <cstring>

#include "kernels.h"
#include "rounding.h"

namespace metric_zoo::ISA {

// The logarithm of a million pixels: a radius beyond every image; bounding it keeps gradients finite.
template <class T>
constexpr T largest_exponent() {
  return T(13.815510557964274);
}

inline float power_of_two(int32_t n) {
  const int32_t bits = (n + 127) << 23;
  float value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

template <class T>
struct Series;
template <>
struct Series<float> {
  static constexpr int terms = 7;
};
template <>
struct Series<double> {
  static constexpr int terms = 13;
};

// e^x up to `largest_exponent`, to rounding; exactly 1 at 0. Written out, because compilers make vectors of it. Below
// -80, where it is less than 1e-34, it stays.
template <class T>
inline __attribute__((always_inline)) T exp_of(T x) {
  const T v = x < T(-80) ? T(-80) : x;
  const T shifted = v * T(1.4426950408889634) + T(0.5);
  const T n = v == v ? floor_of<T>(shifted) : T(0);
  // ln 2 in two parts, of which the first has bits to spare: n times it is exact.
  const T rest = (v - n * T(0.693359375)) - n * T(-2.1219444005469058e-4);
  T sum = T(1);
#pragma GCC unroll 16
  for (int k = Series<T>::terms; k > 0; --k) sum = T(1) + sum * rest / T(k);
  return sum * T(power_of_two(int32_t(n)));
}

// Of one pixel, whose numbers lie `field_component` apart.
template <class T, bool Radial>
inline __attribute__((always_inline)) void formula_positions(const Problem& p, const Table<T>& t, const T* f,
                                                             T* __restrict out_y, T* __restrict out_x,
                                                             T* __restrict exponent) {
  const int64_t lanes = t.lanes;
  for (int64_t i = 0; i < lanes; ++i) out_y[i] = out_x[i] = T(0);
  if (Radial)
    for (int64_t i = 0; i < lanes; ++i) exponent[i] = T(0);
  const T* term = t.terms;
  for (int64_t k = 0; k < p.numbers; ++k, term += 3 * lanes) {
    const T value = f[k * p.field_component];
#pragma omp simd
    for (int64_t i = 0; i < lanes; ++i) {
      if (Radial) exponent[i] += value * term[i];
      out_y[i] += value * term[lanes + i];
      out_x[i] += value * term[2 * lanes + i];
    }
  }
#pragma omp simd
  for (int64_t i = 0; i < lanes; ++i) {
    if (Radial) {
      const T bounded = exponent[i] > largest_exponent<T>() ? largest_exponent<T>() : exponent[i];
      const T radius = exp_of<T>(bounded);
      out_y[i] += radius * t.y[i];
      out_x[i] += radius * t.x[i];
    } else {
      out_y[i] += t.y[i];
      out_x[i] += t.x[i];
    }
  }
}

// What a number's gradient gets of every sample: its own, by y, by x and by the exponent.
template <class T, bool Radial>
inline __attribute__((always_inline)) void formula_gradient(const Problem& p, const Table<T>& t, const T* f,
                                                            const T* __restrict gy, const T* __restrict gx,
                                                            T* __restrict exponent, T* out) {
  const int64_t lanes = t.lanes;
  if (Radial) {
    for (int64_t i = 0; i < lanes; ++i) exponent[i] = T(0);
    for (int64_t k = 0; k < p.numbers; ++k) {
      const T value = f[k * p.field_component];
      const T* term = t.terms + 3 * k * lanes;
#pragma omp simd
      for (int64_t i = 0; i < lanes; ++i) exponent[i] += value * term[i];
    }
#pragma omp simd
    for (int64_t i = 0; i < lanes; ++i) {
      const T value = exponent[i], along = gy[i] * t.y[i] + gx[i] * t.x[i];
      // Where the bound holds nothing changes: a factor of 0, since a branch would cost the vectors.
      exponent[i] = (value > largest_exponent<T>() ? T(0) : T(1)) * along *
                    exp_of<T>(value > largest_exponent<T>() ? largest_exponent<T>() : value);
    }
  }
  const T* term = t.terms;
  for (int64_t k = 0; k < p.numbers; ++k, term += 3 * lanes) {
    T sum = 0;
#pragma omp simd reduction(+ : sum)
    for (int64_t i = 0; i < lanes; ++i) {
      sum += gy[i] * term[lanes + i] + gx[i] * term[2 * lanes + i];
      if (Radial) sum += exponent[i] * term[i];
    }
    out[k * p.field_component] += sum;
  }
}

}  // namespace metric_zoo::ISA

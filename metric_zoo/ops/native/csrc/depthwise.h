// One output channel per input channel: no product to block, a weighted sum of samples.
#pragma once
#include "product.h"
#include "samples.h"

namespace metric_zoo::ISA {

// V vectors of channels, whose sums stay in registers.
template <class Vector, class T, int V>
inline __attribute__((always_inline)) void strip(int64_t cells, const T* image, int64_t stride, const Taps<T>& t,
                                                 int64_t n, const T* zero, const T* weights, int64_t channels, T* out) {
  constexpr int64_t L = sizeof(Vector) / sizeof(T);
  Vector sum[V];
  for (int v = 0; v < V; ++v) sum[v] = *(const Vector*)(out + v * L);
  for (int64_t i = 0; i < cells; ++i) {
    const Corners<T> at = corners(image, stride, t, n + i, zero);
    const T* w = weights + i * channels;
    const T factor = t.mask ? t.mask[n + i] : T(1);
    const T w00 = t.w00[n + i], w01 = t.w01[n + i], w10 = t.w10[n + i], w11 = t.w11[n + i];
#pragma GCC unroll 8
    for (int v = 0; v < V; ++v) {
      const Vector value = w00 * *(const Vector*)(at.c00 + v * L) + w01 * *(const Vector*)(at.c01 + v * L) +
                           w10 * *(const Vector*)(at.c10 + v * L) + w11 * *(const Vector*)(at.c11 + v * L);
      sum[v] += (factor * *(const Vector*)(w + v * L)) * value;
    }
  }
  for (int v = 0; v < V; ++v) *(Vector*)(out + v * L) = sum[v];
}

// As many strips of V vectors as there are from `first` on; returns the first channel that is left.
template <class Vector, class T, int V>
inline int64_t strips(int64_t first, const Problem& p, const Slice& s, const T* image, const Taps<T>& t, int64_t n,
                      const T* zero, const T* weights, T* out) {
  constexpr int64_t width = V * sizeof(Vector) / sizeof(T);
  for (; first + width <= s.channels(); first += width)
    strip<Vector, T, V>(p.cells(), image + s.channel + first, p.channels, t, n, zero, weights + first, s.channels(),
                        out + first);
  return first;
}

template <class T>
void depthwise(const Problem& p, const Slice& s, const T* image, const Taps<T>& t, int64_t lanes, int64_t count,
               const Lines<T>& lines, const T* weights, T* out) {
  using Vector = typename Simd<T>::Vector;
  for (int64_t n = 0; n < count; ++n) {
    T* row = out + n * p.channels + s.channel;
    int64_t c = strips<Vector, T, 4>(0, p, s, image, t, n * lanes, lines.zero, weights, row);
    c = strips<Vector, T, 1>(c, p, s, image, t, n * lanes, lines.zero, weights, row);
    strips<T, T, 1>(c, p, s, image, t, n * lanes, lines.zero, weights, row);
  }
}

template <class T>
void depthwise_backward(const Problem& p, const Slice& s, const T* image, const Taps<T>& t, int64_t lanes,
                        int64_t count, const Lines<T>& lines, const T* weights, const T* grad, Rows<T>& rows,
                        T* sample, T* grad_weights, const SampleGradients<T>& g) {
  const int64_t cells = p.cells(), channels = s.channels();
  for (int64_t n = 0; n < count; ++n) {
    const T* __restrict upstream = grad + n * p.channels + s.channel;
    for (int64_t i = 0; i < cells; ++i) {
      const T* __restrict w = weights + i * channels;
      T* __restrict gw = grad_weights + i * channels;
#pragma omp simd
      for (int64_t c = 0; c < channels; ++c) sample[c] = upstream[c] * w[c];
      scatter_sample(p, s.channel, channels, image, t, n * lanes + i, lines, rows, sample, g);
#pragma omp simd
      for (int64_t c = 0; c < channels; ++c) gw[c] += upstream[c] * sample[c];
    }
  }
}

}  // namespace metric_zoo::ISA

// One output channel per input channel: no product to block, a weighted sum of samples.
#pragma once
#include "samples.h"

namespace metric_zoo::ISA {

// V vectors of L channels, whose sums stay in registers.
template <class T, int64_t L, int V>
inline __attribute__((always_inline)) void strip(int64_t cells, const T* image, int64_t stride, const Taps<T>& t,
                                                 int64_t n, const T* zero, const T* weights, int64_t channels, T* out) {
  Vector<T, L> sum[V];
  for (int v = 0; v < V; ++v) sum[v] = load<T, L>(out + v * L);
  for (int64_t i = 0; i < cells; ++i) {
    const Corners<T> at = corners(image, stride, t, n + i, zero);
    const T* w = weights + i * channels;
    const T factor = t.mask ? t.mask[n + i] : T(1);
    const T w00 = t.w00[n + i], w01 = t.w01[n + i], w10 = t.w10[n + i], w11 = t.w11[n + i];
#pragma GCC unroll 8
    for (int v = 0; v < V; ++v) {
      const Vector<T, L> value = w00 * load<T, L>(at.c00 + v * L) + w01 * load<T, L>(at.c01 + v * L) +
                                 w10 * load<T, L>(at.c10 + v * L) + w11 * load<T, L>(at.c11 + v * L);
      sum[v] += (factor * load<T, L>(w + v * L)) * value;
    }
  }
  for (int v = 0; v < V; ++v) store<T, L>(out + v * L, sum[v]);
}

// As many strips of V vectors of L channels as there are from `first` on; returns the first channel that is left.
template <class T, int64_t L, int V>
inline int64_t strips(int64_t first, const Problem& p, const Slice& s, const T* image, const Taps<T>& t, int64_t n,
                      const T* zero, const T* weights, T* out) {
  constexpr int64_t width = V * L;
  for (; first + width <= s.channels(); first += width)
    strip<T, L, V>(p.cells(), image + s.channel + first, p.channels, t, n, zero, weights + first, s.channels(),
                   out + first);
  return first;
}

template <class T>
void depthwise(const Problem& p, const Slice& s, const T* image, const Taps<T>& t, int64_t lanes, int64_t count,
               const Lines<T>& lines, const T* weights, T* out) {
  for (int64_t n = 0; n < count; ++n) {
    T* row = out + n * p.channels + s.channel;
    int64_t c = strips<T, kLanes<T>, 4>(0, p, s, image, t, n * lanes, lines.zero, weights, row);
    c = strips<T, kLanes<T>, 1>(c, p, s, image, t, n * lanes, lines.zero, weights, row);
    strips<T, 1, 1>(c, p, s, image, t, n * lanes, lines.zero, weights, row);
  }
}

template <class T>
void depthwise_backward(const Problem& p, const Slice& s, const T* image, const Taps<T>& t, int64_t lanes,
                        int64_t count, const Lines<T>& lines, const T* weights, const T* grad, Rows<T>& rows, T* sample,
                        T* grad_weights, const SampleGradients<T>& g) {
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

// Samples that lie alike at every pixel of a plane: a weighted sum of shifted rows, vectors along the row.
#pragma once
#include "kernels.h"
#include "simd.h"

namespace metric_zoo::ISA {

template <class T, int64_t L, int V>
inline __attribute__((always_inline)) void stencil_strip(const T* row, const Shift<T>* shifts, int64_t count, T* out) {
  Vector<T, L> sum[V];
#pragma GCC unroll 8
  for (int v = 0; v < V; ++v) sum[v] = load<T, L>(out + v * L);
  for (int64_t i = 0; i < count; ++i) {
    const T* from = row + shifts[i].by;
    const T weight = shifts[i].weight;
#pragma GCC unroll 8
    for (int v = 0; v < V; ++v) sum[v] += weight * load<T, L>(from + v * L);
  }
#pragma GCC unroll 8
  for (int v = 0; v < V; ++v) store<T, L>(out + v * L, sum[v]);
}

template <class T, int64_t L, int V>
inline int64_t stencil_strips(int64_t x, int64_t width, const T* row, const Shift<T>* shifts, int64_t count, T* out) {
  for (; x + V * L <= width; x += V * L) stencil_strip<T, L, V>(row + x, shifts, count, out + x);
  return x;
}

template <class T>
void add_shifted(int64_t width, const T* row, const Shift<T>* shifts, int64_t count, T* out) {
  int64_t x = stencil_strips<T, kLanes<T>, 8>(0, width, row, shifts, count, out);
  x = stencil_strips<T, kLanes<T>, 1>(x, width, row, shifts, count, out);
  stencil_strips<T, 1, 1>(x, width, row, shifts, count, out);
}

}  // namespace metric_zoo::ISA

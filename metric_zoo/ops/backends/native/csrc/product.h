// Small matrix products: a register block of ROWS x 2 vectors, b in packed panels.
#pragma once
#include "kernels.h"
#include "simd.h"

namespace metric_zoo::ISA {

template <class T>
constexpr int64_t kPanel = 2 * kLanes<T>;

constexpr int64_t kDepth = 256;  // rows of a panel at a time: what stays in the first cache

inline int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }

template <class T, int M, int V, bool Transposed>
inline __attribute__((always_inline)) void block(int64_t k, const T* a, int64_t lda, const T* b, T* c, int64_t ldc) {
  constexpr int64_t L = kLanes<T>;
  Vector<T, L> sum[M][V];
  for (int i = 0; i < M; ++i)
    for (int j = 0; j < V; ++j) sum[i][j] = load<T, L>(c + i * ldc + j * L);
  for (int64_t q = 0; q < k; ++q) {
    Vector<T, L> row[V];
    for (int j = 0; j < V; ++j) row[j] = load<T, L>(b + q * kPanel<T> + j * L);
#pragma GCC unroll 16
    for (int i = 0; i < M; ++i) {
      const T value = Transposed ? a[q * lda + i] : a[i * lda + q];
#pragma GCC unroll 2
      for (int j = 0; j < V; ++j) sum[i][j] += value * row[j];
    }
  }
  for (int i = 0; i < M; ++i)
    for (int j = 0; j < V; ++j) store<T, L>(c + i * ldc + j * L, sum[i][j]);
}

// A block at the right edge: `width` columns of c exist.
template <class T, int M, int V, bool Transposed>
inline void edge(int64_t k, const T* a, int64_t lda, const T* b, T* c, int64_t ldc, int64_t width) {
  T part[M * kPanel<T>] = {};
  for (int i = 0; i < M; ++i)
    for (int64_t j = 0; j < width; ++j) part[i * kPanel<T> + j] = c[i * ldc + j];
  block<T, M, V, Transposed>(k, a, lda, b, part, kPanel<T>);
  for (int i = 0; i < M; ++i)
    for (int64_t j = 0; j < width; ++j) c[i * ldc + j] = part[i * kPanel<T> + j];
}

template <class T, int M, bool Transposed>
inline void rows_of(int64_t k, const T* a, int64_t lda, const T* b, T* c, int64_t ldc, int64_t width) {
  if (width == kPanel<T>)
    block<T, M, 2, Transposed>(k, a, lda, b, c, ldc);
  else if (width == kLanes<T>)
    block<T, M, 1, Transposed>(k, a, lda, b, c, ldc);
  else if (width < kLanes<T>)
    edge<T, M, 1, Transposed>(k, a, lda, b, c, ldc, width);
  else
    edge<T, M, 2, Transposed>(k, a, lda, b, c, ldc, width);
}

// c (m, width) += a b for one panel and at most kDepth of k; the last rows in blocks of 8, 4, 2 and 1.
template <class T, bool Transposed>
void one_panel(int64_t m, int64_t k, const T* a, int64_t lda, const T* b, T* c, int64_t ldc, int64_t width) {
  const int64_t step = Transposed ? 1 : lda;
  int64_t i = 0;
  for (; i + ROWS <= m; i += ROWS) rows_of<T, ROWS, Transposed>(k, a + i * step, lda, b, c + i * ldc, ldc, width);
  for (; i + 8 <= m; i += 8) rows_of<T, 8, Transposed>(k, a + i * step, lda, b, c + i * ldc, ldc, width);
  for (; i + 4 <= m; i += 4) rows_of<T, 4, Transposed>(k, a + i * step, lda, b, c + i * ldc, ldc, width);
  for (; i + 2 <= m; i += 2) rows_of<T, 2, Transposed>(k, a + i * step, lda, b, c + i * ldc, ldc, width);
  for (; i < m; ++i) rows_of<T, 1, Transposed>(k, a + i * step, lda, b, c + i * ldc, ldc, width);
}

template <class T>
void multiply(int64_t m, int64_t n, int64_t k, const T* a, int64_t lda, const T* panels, T* c, int64_t ldc) {
  for (int64_t q = 0; q < k; q += kDepth)
    for (int64_t j = 0; j < n; j += kPanel<T>)
      one_panel<T, false>(m, least(kDepth, k - q), a + q, lda, panels + j * k + q * kPanel<T>, c + j, ldc,
                          least(kPanel<T>, n - j));
}

template <class T>
void multiply_transposed(int64_t m, int64_t n, int64_t k, const T* a, int64_t lda, const T* b, int64_t ldb, T* c,
                         int64_t ldc, T* panel) {
  for (int64_t j = 0; j < n; j += kPanel<T>) {
    const int64_t width = least(kPanel<T>, n - j);
    for (int64_t q = 0; q < k; ++q) {
      T* row = panel + q * kPanel<T>;
      for (int64_t i = 0; i < kPanel<T>; ++i) row[i] = i < width ? b[q * ldb + j + i] : T(0);
    }
    one_panel<T, true>(m, k, a, lda, panel, c + j, ldc, width);
  }
}

template <class T>
void dot_rows(int64_t m, int64_t n, int64_t k, const T* a, int64_t lda, const T* weights, T* c, int64_t ldc) {
  for (int64_t i = 0; i < m; ++i)
    for (int64_t o = 0; o < n; ++o) {
      const T *x = a + i * lda, *w = weights + o * k;
      T sum = 0;
#pragma omp simd reduction(+ : sum)
      for (int64_t q = 0; q < k; ++q) sum += x[q] * w[q];
      c[i * ldc + o] += sum;
    }
}

template <class T>
void spread_rows(int64_t m, int64_t n, int64_t k, const T* grad, int64_t ldg, const T* weights, T* a, int64_t lda) {
  for (int64_t i = 0; i < m; ++i)
    for (int64_t o = 0; o < n; ++o) {
      const T g = grad[i * ldg + o], *__restrict w = weights + o * k;
      T* __restrict x = a + i * lda;
#pragma omp simd
      for (int64_t q = 0; q < k; ++q) x[q] = o ? x[q] + g * w[q] : g * w[q];
    }
}

template <class T>
void sum_rows(int64_t m, int64_t n, int64_t k, const T* grad, int64_t ldg, const T* a, int64_t lda, T* weights) {
  for (int64_t i = 0; i < m; ++i)
    for (int64_t o = 0; o < n; ++o) {
      const T g = grad[i * ldg + o], *__restrict x = a + i * lda;
      T* __restrict w = weights + o * k;
#pragma omp simd
      for (int64_t q = 0; q < k; ++q) w[q] += g * x[q];
    }
}

}  // namespace metric_zoo::ISA

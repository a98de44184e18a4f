// The inner loops, one table of them per instruction set.
#pragma once
#include <cmath>
#include <limits>

#include "problem.h"

namespace metric_zoo {

// A run of input channels that share their positions: `groups` whole convolution groups of `per_group` channels each,
// or, where `groups` is 1, a part of one.
struct Slice {
  int64_t channel, per_group, groups;
  int64_t group;  // the first convolution group
  int64_t field;
  int64_t channels() const { return per_group * groups; }
};

// Constants of every sample, `lanes` of each (the number of cells, rounded up to whole vectors).
template <class T>
struct Table {
  int64_t lanes;
  T *y, *x;         // the displacement (ball rule), nothing (position rule), or the grid
  T *xx, *xy, *yy;  // of the direction: x^2, 2xy, y^2
  T *square, *unit_y, *unit_x;
  T eps;
  T* blended;  // the blend rule's tables: (tables, 3, lanes) of y, x, mask
  T* terms;    // of the linear and radial rules: (numbers, 3, lanes) of exponent, y, x
  T* boxes;    // (tables, 4): least and largest y, then x, of what lies between a table and the next ones
};

// Where the samples of a tile of pixels read: arrays of (pixels, lanes).
template <class T>
struct Taps {
  T *w00, *w01, *w10, *w11;        // bilinear weights: first row, then column
  int32_t *i00, *i01, *i10, *i11;  // pixels of the image; -1 is outside (or, in the forward pass, of weight 0)
  T *fy, *fx;                      // fractions, and
  int32_t *y, *x;                  // the upper left corner: of the backward pass alone
  T* mask;                         // null without one
};

// Rows of one image's gradient. A thread that shares the image with others has its own, made when first met.
template <class T>
struct Rows {
  T** row;   // null: this gradient is not wanted
  T* image;  // all rows, where they lie one after the other; those of an image of one channel always do
  T* (*make)(Rows&, int64_t y);
  void* context;
};

// A tile of output pixels of one image: [begin, begin + count).
struct Tile {
  int64_t image, begin, count;
};

// Buffers of one thread that kernels need besides their arguments.
template <class T>
struct Lines {
  T* zero;  // `channels` zeros, what a corner outside reads
  T* dump;  // what a corner outside receives
  T* y;     // positions of a tile's samples: arrays of (pixels, lanes)
  T* x;
  T* exponent;  // `lanes` numbers, of one pixel
};

// Gradients of a tile's positions and masks, arrays of (pixels, lanes); and a buffer of `lanes` numbers.
template <class T>
struct SampleGradients {
  T *y, *x, *mask, *exponent;
};

// What a sample of a stencil reads, in elements from the pixel, and how much it counts.
template <class T>
struct Shift {
  int64_t by;
  T weight;
};

template <class T>
struct Kernels {
  int64_t rows, columns;  // of the product's register block; `columns` is the width of a packed panel
  void (*find_taps)(const Problem&, const Table<T>&, const T* field, const T* mask, int64_t group, Tile,
                    const Lines<T>&, const Taps<T>&);
  void (*find_taps_backward)(const Problem&, const Table<T>&, const T* field, const T* mask, int64_t group, Tile,
                             const Lines<T>&, const Taps<T>&);
  void (*gather)(const Problem&, const Slice&, const T* image, const Taps<T>&, int64_t lanes, int64_t count,
                 const Lines<T>&, T* columns);
  // columns: in, the samples' gradients; out, their values.
  void (*scatter)(const Problem&, const Slice&, const T* image, const Taps<T>&, int64_t lanes, int64_t count,
                  const Lines<T>&, Rows<T>&, T* columns, const SampleGradients<T>&);
  void (*field_gradient)(const Problem&, const Table<T>&, const T* field, int64_t group, Tile,
                         const SampleGradients<T>&, T* grad_field);
  // Of the blend rule: through the places on the grid, and through the tables, laid out as in Table; null is not
  // wanted. The latter are sums over a whole image, for which floats are too coarse.
  void (*blend_gradient)(const Problem&, const Table<T>&, const T* field, Tile, const SampleGradients<T>&,
                         T* grad_field, double* grad_tables);
  // c (m, n) += a (m, k) b, with b in packed panels of (k, columns).
  void (*multiply)(int64_t m, int64_t n, int64_t k, const T* a, int64_t lda, const T* panels, T* c, int64_t ldc);
  // c (m, n) += a^T b, with a (k, m) and b (k, n) in rows; `panel` is a buffer of (k, columns).
  void (*multiply_transposed)(int64_t m, int64_t n, int64_t k, const T* a, int64_t lda, const T* b, int64_t ldb, T* c,
                              int64_t ldc, T* panel);
  // The same three products for a few output channels: weights in rows of k.
  void (*dot_rows)(int64_t m, int64_t n, int64_t k, const T* a, int64_t lda, const T* weights, T* c, int64_t ldc);
  void (*spread_rows)(int64_t m, int64_t n, int64_t k, const T* grad, int64_t ldg, const T* weights, T* a, int64_t lda);
  void (*sum_rows)(int64_t m, int64_t n, int64_t k, const T* grad, int64_t ldg, const T* a, int64_t lda, T* weights);
  // One output channel per input channel: weights (cells, channels), output and gradient in rows of `channels`.
  void (*depthwise)(const Problem&, const Slice&, const T* image, const Taps<T>&, int64_t lanes, int64_t count,
                    const Lines<T>&, const T* weights, T* out);
  void (*depthwise_backward)(const Problem&, const Slice&, const T* image, const Taps<T>&, int64_t lanes, int64_t count,
                             const Lines<T>&, const T* weights, const T* grad, Rows<T>&, T* sample, T* grad_weights,
                             const SampleGradients<T>&);
  // Of the blend rule, for an image of one channel: everything at once.
  void (*blend_pixels)(const Problem&, const Table<T>&, const T* field, Tile, const T* image, const Lines<T>&,
                       const Taps<T>&, T* out);
  // out[x] += sum of weight * row[x + by].
  void (*add_shifted)(int64_t width, const T* row, const Shift<T>* shifts, int64_t count, T* out);
};

enum Isa : int { kBaseline = 0, kAvx2 = 1, kAvx512 = 2 };

// The best this processor runs, at most `kMost` as set by `limit_isa`.
template <class T>
const Kernels<T>& kernels();
int limit_isa(int most);

}  // namespace metric_zoo

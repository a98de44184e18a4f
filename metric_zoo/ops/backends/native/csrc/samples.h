// Reading the image at taps, and the transpose: handing a sample's gradient to the pixels it read.
#pragma once
#include "kernels.h"
#include "simd.h"

namespace metric_zoo::ISA {

template <class T>
struct Corners {
  const T *c00, *c01, *c10, *c11;
};

template <class T>
inline __attribute__((always_inline)) Corners<T> corners(const T* image, int64_t stride, const Taps<T>& t, int64_t n,
                                                         const T* zero) {
  const int64_t i00 = t.i00[n], i01 = t.i01[n], i10 = t.i10[n], i11 = t.i11[n];
  return {i00 < 0 ? zero : image + i00 * stride, i01 < 0 ? zero : image + i01 * stride,
          i10 < 0 ? zero : image + i10 * stride, i11 < 0 ? zero : image + i11 * stride};
}

template <class T, int64_t N>
inline __attribute__((always_inline)) void blend_at(int64_t c, const Corners<T>& at, T w00, T w01, T w10, T w11,
                                                    T* out) {
  store<T, N>(out + c, w00 * load<T, N>(at.c00 + c) + w01 * load<T, N>(at.c01 + c) + w10 * load<T, N>(at.c10 + c) +
                           w11 * load<T, N>(at.c11 + c));
}

template <class T>
inline __attribute__((always_inline)) void blend(int64_t count, const Corners<T>& at, const Taps<T>& t, int64_t n,
                                                 T* out) {
  const T w00 = t.w00[n], w01 = t.w01[n], w10 = t.w10[n], w11 = t.w11[n];
  int64_t c = 0;
  for (; c + kLanes<T> <= count; c += kLanes<T>) blend_at<T, kLanes<T>>(c, at, w00, w01, w10, w11, out);
  for (; c < count; ++c) blend_at<T, 1>(c, at, w00, w01, w10, w11, out);
}

template <class T>
inline T pixel_or_zero(const T* image, int32_t index) {
  const T value = image[index < 0 ? 0 : index];
  return index < 0 ? T(0) : value;
}

// An image of one channel: vectors run over the samples instead.
template <class T>
inline void blend_cells(int64_t cells, const T* __restrict image, const Taps<T>& t, int64_t n, T* __restrict out) {
  const T *w00 = t.w00 + n, *w01 = t.w01 + n, *w10 = t.w10 + n, *w11 = t.w11 + n;
  const int32_t *i00 = t.i00 + n, *i01 = t.i01 + n, *i10 = t.i10 + n, *i11 = t.i11 + n;
#pragma omp simd
  for (int64_t i = 0; i < cells; ++i)
    out[i] = w00[i] * pixel_or_zero(image, i00[i]) + w01[i] * pixel_or_zero(image, i01[i]) +
             w10[i] * pixel_or_zero(image, i10[i]) + w11[i] * pixel_or_zero(image, i11[i]);
}

template <class T>
void gather(const Problem& p, const Slice& s, const T* image, const Taps<T>& t, int64_t lanes, int64_t count,
            const Lines<T>& lines, T* columns) {
  const int64_t cells = p.cells(), width = cells * s.channels(), step = cells * s.per_group;
  for (int64_t n = 0; n < count; ++n) {
    T* row = columns + n * width;
    if (p.channels == 1) {
      blend_cells(cells, image, t, n * lanes, row);
      if (t.mask)
        for (int64_t i = 0; i < cells; ++i) row[i] *= t.mask[n * lanes + i];
      continue;
    }
    for (int64_t i = 0; i < cells; ++i) {
      Corners<T> at = corners(image + s.channel, p.channels, t, n * lanes + i, lines.zero);
      for (int64_t g = 0; g < s.groups; ++g) {
        T* out = row + g * step + i * s.per_group;
        blend(s.per_group, at, t, n * lanes + i, out);
        // After the sum: a factor of infinity times a corner outside would be NaN.
        if (t.mask)
          for (int64_t c = 0; c < s.per_group; ++c) out[c] *= t.mask[n * lanes + i];
        const int64_t next = s.per_group;
        at = {at.c00 + next, at.c01 + next, at.c10 + next, at.c11 + next};
      }
    }
  }
}

template <class T>
struct Targets {
  T *c00, *c01, *c10, *c11;
};

template <class T>
inline T* row_of(Rows<T>& rows, int64_t y) {
  T* row = rows.row[y];
  return row ? row : rows.make(rows, y);
}

template <class T>
inline Targets<T> targets(const Problem& p, Rows<T>& rows, const Taps<T>& t, int64_t n, int64_t channel, T* dump) {
  Targets<T> to = {dump, dump, dump, dump};
  if (!rows.row) return to;
  const int64_t y = t.y[n], at = t.x[n] * p.channels + channel;
  if (y >= 0 && y < p.height) {
    T* row = row_of(rows, y) + at;
    if (t.i00[n] >= 0) to.c00 = row;
    if (t.i01[n] >= 0) to.c01 = row + p.channels;
  }
  if (y >= -1 && y < p.height - 1) {
    T* row = row_of(rows, y + 1) + at;
    if (t.i10[n] >= 0) to.c10 = row;
    if (t.i11[n] >= 0) to.c11 = row + p.channels;
  }
  return to;
}

// Products of a sample's gradient with the pixels of its four corners.
template <class T>
struct Dots {
  T d00, d01, d10, d11;
};

template <class T, int64_t N>
struct Sums {
  Vector<T, N> d00{}, d01{}, d10{}, d11{};
};

template <class T, int64_t N>
inline __attribute__((always_inline)) void spread_at(int64_t c, const Corners<T>& at, const Targets<T>& to, T w00,
                                                     T w01, T w10, T w11, T* sample, Sums<T, N>& sums) {
  const Vector<T, N> g = load<T, N>(sample + c), v00 = load<T, N>(at.c00 + c), v01 = load<T, N>(at.c01 + c),
                     v10 = load<T, N>(at.c10 + c), v11 = load<T, N>(at.c11 + c);
  sums.d00 += g * v00;
  sums.d01 += g * v01;
  sums.d10 += g * v10;
  sums.d11 += g * v11;
  store<T, N>(sample + c, w00 * v00 + w01 * v01 + w10 * v10 + w11 * v11);
  // One after the other: corners outside share a line.
  store<T, N>(to.c00 + c, load<T, N>(to.c00 + c) + w00 * g);
  store<T, N>(to.c01 + c, load<T, N>(to.c01 + c) + w01 * g);
  store<T, N>(to.c10 + c, load<T, N>(to.c10 + c) + w10 * g);
  store<T, N>(to.c11 + c, load<T, N>(to.c11 + c) + w11 * g);
}

// In one pass over the channels: values replace gradients, targets receive, dots are summed.
template <class T>
inline __attribute__((always_inline)) Dots<T> spread(int64_t count, const Corners<T>& at, const Targets<T>& to,
                                                     const Taps<T>& t, int64_t n, T factor, T* sample) {
  constexpr int64_t L = kLanes<T>;
  const T w00 = factor * t.w00[n], w01 = factor * t.w01[n], w10 = factor * t.w10[n], w11 = factor * t.w11[n];
  Sums<T, L> wide;
  Sums<T, 1> rest;
  int64_t c = 0;
  for (; c + L <= count; c += L) spread_at<T, L>(c, at, to, w00, w01, w10, w11, sample, wide);
  for (; c < count; ++c) spread_at<T, 1>(c, at, to, w00, w01, w10, w11, sample, rest);
  return {rest.d00 + total<T, L>(wide.d00), rest.d01 + total<T, L>(wide.d01), rest.d10 + total<T, L>(wide.d10),
          rest.d11 + total<T, L>(wide.d11)};
}

template <class T>
inline T dot(int64_t count, const T* a, const T* b) {
  T sum = 0;
#pragma omp simd reduction(+ : sum)
  for (int64_t c = 0; c < count; ++c) sum += a[c] * b[c];
  return sum;
}

// The pixel (y, x), or zeros outside.
template <class T>
inline const T* pixel_at(const Problem& p, const T* image, int64_t y, int64_t x, const T* zero) {
  return y < 0 || y >= p.height || x < 0 || x >= p.width ? zero : image + (y * p.width + x) * p.channels;
}

// At an integer coordinate the slope is the mean of both sides: half of what lies beyond minus what lies before.
// `before` are the products with the corners one row up (or one column to the left).
template <class T>
struct Before {
  T up0 = 0, up1 = 0, left0 = 0, left1 = 0;
};

template <class T>
inline Before<T> before(const Problem& p, int64_t count, const T* image, const Taps<T>& t, int64_t n, const T* zero,
                        const T* gradient) {
  Before<T> b;
  const int64_t y = t.y[n], x = t.x[n];
  if (t.fy[n] == T(0)) {
    b.up0 = dot(count, gradient, pixel_at(p, image, y - 1, x, zero));
    if (t.fx[n] != T(0)) b.up1 = dot(count, gradient, pixel_at(p, image, y - 1, x + 1, zero));
  }
  if (t.fx[n] == T(0)) {
    b.left0 = dot(count, gradient, pixel_at(p, image, y, x - 1, zero));
    if (t.fy[n] != T(0)) b.left1 = dot(count, gradient, pixel_at(p, image, y + 1, x - 1, zero));
  }
  return b;
}

template <class T>
inline void add_sample_gradient(const Taps<T>& t, int64_t n, T factor, const Dots<T>& d, const Before<T>& b,
                                const SampleGradients<T>& g) {
  const T fy = t.fy[n], fx = t.fx[n], gy = T(1) - fy, gx = T(1) - fx;
  const T dy =
      fy == T(0) ? T(0.5) * (gx * (d.d10 - b.up0) + fx * (d.d11 - b.up1)) : gx * (d.d10 - d.d00) + fx * (d.d11 - d.d01);
  const T dx = fx == T(0) ? T(0.5) * (gy * (d.d01 - b.left0) + fy * (d.d11 - b.left1))
                          : gy * (d.d01 - d.d00) + fy * (d.d11 - d.d10);
  g.y[n] += factor * dy;
  g.x[n] += factor * dx;
  if (t.mask) g.mask[n] += t.w00[n] * d.d00 + t.w01[n] * d.d01 + t.w10[n] * d.d10 + t.w11[n] * d.d11;
}

template <class T>
inline bool on_a_line(const Taps<T>& t, int64_t n) {
  return (t.fy[n] == T(0)) | (t.fx[n] == T(0));
}

// One sample of `count` channels from `channel` on; `sample` holds its gradient and receives its value.
template <class T>
inline void scatter_sample(const Problem& p, int64_t channel, int64_t count, const T* image, const Taps<T>& t,
                           int64_t n, const Lines<T>& lines, Rows<T>& rows, T* sample, const SampleGradients<T>& g) {
  const T* origin = image + channel;
  const T factor = t.mask ? t.mask[n] : T(1);
  Before<T> b;
  if (on_a_line(t, n)) b = before(p, count, origin, t, n, lines.zero, sample);
  const Corners<T> at = corners(origin, p.channels, t, n, lines.zero);
  const Targets<T> to = targets(p, rows, t, n, channel, lines.dump);
  add_sample_gradient(t, n, factor, spread(count, at, to, t, n, factor, sample), b, g);
}

// Gradients of the samples between lines, and every sample's value in place of its gradient.
template <class T, bool Masked>
inline void settle_cells(int64_t cells, const T* __restrict image, const Taps<T>& t, int64_t n, T* __restrict row,
                         const SampleGradients<T>& g) {
  const int32_t* __restrict i00 = t.i00 + n, * __restrict i01 = t.i01 + n, * __restrict i10 = t.i10 + n, * __restrict i11 = t.i11 + n;
  const T* __restrict fy = t.fy + n, * __restrict fx = t.fx + n, * __restrict mask = t.mask + n;
  T* __restrict out_y = g.y + n, * __restrict out_x = g.x + n, * __restrict out_mask = g.mask + n;
#pragma omp simd
  for (int64_t i = 0; i < cells; ++i) {
    const T v00 = pixel_or_zero(image, i00[i]), v01 = pixel_or_zero(image, i01[i]);
    const T v10 = pixel_or_zero(image, i10[i]), v11 = pixel_or_zero(image, i11[i]);
    const T y = fy[i], x = fx[i], gradient = row[i];
    const T top = v00 + x * (v01 - v00), bottom = v10 + x * (v11 - v10), value = top + y * (bottom - top);
    const T factor = Masked ? mask[i] : T(1);
    const T between = (y == T(0) ? T(0) : T(1)) * (x == T(0) ? T(0) : T(1)) * gradient;
    out_y[i] += factor * between * (bottom - top);
    out_x[i] += factor * between * ((v01 - v00) + y * ((v11 - v10) - (v01 - v00)));
    if (Masked) out_mask[i] += between * value;
    row[i] = factor * value;
  }
}

template <class T>
inline void hand_out(int64_t cells, const Taps<T>& t, int64_t n, const T* row, T* image, T* dump) {
  const int32_t *i00 = t.i00 + n, *i01 = t.i01 + n, *i10 = t.i10 + n, *i11 = t.i11 + n;
  for (int64_t i = 0; i < cells; ++i) {
    const T gradient = t.mask ? t.mask[n + i] * row[i] : row[i];
    *(i00[i] < 0 ? dump : image + i00[i]) += t.w00[n + i] * gradient;
    *(i01[i] < 0 ? dump : image + i01[i]) += t.w01[n + i] * gradient;
    *(i10[i] < 0 ? dump : image + i10[i]) += t.w10[n + i] * gradient;
    *(i11[i] < 0 ? dump : image + i11[i]) += t.w11[n + i] * gradient;
  }
}

template <class T>
inline bool any_on_a_line(int64_t cells, const Taps<T>& t, int64_t n) {
  int32_t found = 0;
  for (int64_t i = 0; i < cells; ++i) found |= int32_t(t.fy[n + i] == T(0)) | int32_t(t.fx[n + i] == T(0));
  return found;
}

// An image of one channel: gradients are handed out number by number, samples on a line (few, once training has begun)
// settled one by one, and all others with vectors over the samples.
template <class T>
inline void scatter_cells(const Problem& p, const T* image, const Taps<T>& t, int64_t n, const Lines<T>& lines,
                          Rows<T>& rows, T* row, const SampleGradients<T>& g) {
  const int64_t cells = p.cells();
  if (rows.image) hand_out(cells, t, n, row, rows.image, lines.dump);
  if (any_on_a_line(cells, t, n))
    for (int64_t i = 0; i < cells; ++i) {
      if (!on_a_line(t, n + i)) continue;
      const Corners<T> at = corners(image, 1, t, n + i, lines.zero);
      const Dots<T> d = {row[i] * *at.c00, row[i] * *at.c01, row[i] * *at.c10, row[i] * *at.c11};
      const T factor = t.mask ? t.mask[n + i] : T(1);
      add_sample_gradient(t, n + i, factor, d, before(p, 1, image, t, n + i, lines.zero, row + i), g);
    }
  if (t.mask)
    settle_cells<T, true>(cells, image, t, n, row, g);
  else
    settle_cells<T, false>(cells, image, t, n, row, g);
}

template <class T>
void scatter(const Problem& p, const Slice& s, const T* image, const Taps<T>& t, int64_t lanes, int64_t count,
             const Lines<T>& lines, Rows<T>& rows, T* columns, const SampleGradients<T>& g) {
  const int64_t cells = p.cells(), width = cells * s.channels(), step = cells * s.per_group;
  for (int64_t n = 0; n < count; ++n) {
    if (p.channels == 1) {
      scatter_cells(p, image, t, n * lanes, lines, rows, columns + n * width, g);
      continue;
    }
    for (int64_t i = 0; i < cells; ++i)
      for (int64_t k = 0; k < s.groups; ++k)
        scatter_sample(p, s.channel + k * s.per_group, s.per_group, image, t, n * lanes + i, lines, rows,
                       columns + n * width + k * step + i * s.per_group, g);
  }
}

}  // namespace metric_zoo::ISA

// From the field at a pixel to positions, from positions to the four pixels each sample reads, and back for gradients.
#pragma once
#include "formula.h"
#include "kernels.h"
#include "rounding.h"

namespace metric_zoo::ISA {

// The least value of u^T M u (rounding of an extreme M must not give a root of a negative number) and of F.
template <class T>
constexpr T least_square();
template <>
constexpr float least_square() {
  return 1.17549435e-38f;
}
template <>
constexpr double least_square() {
  return 2.2250738585072014e-308;
}
template <class T>
constexpr T least_norm() {
  return T(1e-6);
}

template <class T>
inline int64_t field_base(const Problem& p, int64_t image, int64_t group, int64_t row, int64_t column) {
  return image * p.field_batch + group * p.field_group + row * p.field_row + column * p.field_column;
}

// y_i = a_i / max(F(u_i / |u_i|) + eps, 1e-6): the square of F's root before its bound, the root, and F + eps before
// its own.
template <class T>
struct Norm {
  T square, root, value;
};

template <class T>
inline __attribute__((always_inline)) T at_least(T bound, T value) {
  return value < bound ? bound : value;
}  // keeps NaN

template <class T>
inline __attribute__((always_inline)) Norm<T> ball_norm(const Table<T>& t, int64_t i, T m11, T m12, T m22, T wx, T wy) {
  const T square = m11 * t.xx[i] + m12 * t.xy[i] + m22 * t.yy[i];
  const T root_ = root<T>(at_least(least_square<T>(), square) / t.square[i]);
  return {square, root_, root_ + (wx * t.unit_x[i] + wy * t.unit_y[i]) + t.eps};
}

// Whether every cell has an image of offsets to itself, in which a tile's pixels follow one another.
inline bool has_images_of_offsets(const Problem& p) {
  return p.gives_every_cell() && p.field_cell != 0 && p.field_column == 1 && p.field_row == p.out_width;
}

template <class T>
inline void ball_positions(const Problem& p, const Table<T>& t, const T* f, T* out_y, T* out_x) {
  const int64_t s = p.field_component;
  const T m11 = f[0], m12 = f[s], m22 = f[2 * s], wx = f[3 * s], wy = f[4 * s];
#pragma omp simd
  for (int64_t i = 0; i < t.lanes; ++i) {
    const T radius = T(1) / at_least(least_norm<T>(), ball_norm(t, i, m11, m12, m22, wx, wy).value);
    out_y[i] = t.y[i] * radius;
    out_x[i] = t.x[i] * radius;
  }
}

template <class T>
inline void offset_positions(const Problem& p, const Table<T>& t, const T* f, T* out_y, T* out_x) {
  for (int64_t i = 0; i < p.cells(); ++i) {
    out_y[i] = t.y[i] + f[i * p.field_cell];
    out_x[i] = t.x[i] + f[i * p.field_cell + p.field_component];
  }
}

// Offsets lie cell by cell, a whole image apart: a tile's are read cell by cell too, or every one misses the cache.
template <class T>
inline void dense_offset_positions(const Problem& p, const Table<T>& t, const T* f, int64_t count,
                                   const Lines<T>& out) {
  for (int64_t i = 0; i < p.cells(); ++i) {
    const T *y = f + i * p.field_cell, *x = y + p.field_component;
    for (int64_t n = 0; n < count; ++n) {
      out.y[n * t.lanes + i] = t.y[i] + y[n];
      out.x[n * t.lanes + i] = t.x[i] + x[n];
    }
  }
}

template <class T>
inline void positions_at(const Problem& p, const Table<T>& t, const T* f, T* y, T* x, T* exponent) {
  switch (p.rule) {
    case kBall: return ball_positions(p, t, f, y, x);
    case kLinear: return formula_positions<T, false>(p, t, f, y, x, exponent);
    case kRadial: return formula_positions<T, true>(p, t, f, y, x, exponent);
    default: return offset_positions(p, t, f, y, x);
  }
}

// Of a tile's samples, relative to the middles of their windows.
template <class T>
inline void find_positions(const Problem& p, const Table<T>& t, const T* field, int64_t group, Tile tile,
                           const Lines<T>& out) {
  const bool dense = has_images_of_offsets(p);
  if (dense) {
    const T* f = field + field_base<T>(p, tile.image, group, 0, 0) + tile.begin;
    dense_offset_positions(p, t, f, tile.count, out);
  }
  for (int64_t n = 0; n < tile.count; ++n) {
    T *y = out.y + n * t.lanes, *x = out.x + n * t.lanes;
    if (!dense) {
      const int64_t pixel = tile.begin + n, row = pixel / p.out_width;
      const T* f = field + field_base<T>(p, tile.image, group, row, pixel - row * p.out_width);
      positions_at(p, t, f, y, x, out.exponent);
    }
    if (p.gives_every_cell())
      for (int64_t i = p.cells(); i < t.lanes; ++i) y[i] = x[i] = T(0);
  }
}

template <class T>
inline T within(T value, T end) {
  return (value >= T(0) ? T(1) : T(0)) * (value < end ? T(1) : T(0));
}

// Whether a corner of this weight is read.
template <class T, bool Backward>
inline T read(T weight) {
  return Backward ? T(1) : (weight != T(0) ? T(1) : T(0));
}

// The forward pass reads no corner of weight 0: on a pixel, what lies beside it (infinity, too) does not matter. The
// backward pass needs the pixels beside it, and fractions and places besides.
template <class T, bool Backward>
inline void locate(const Problem& p, const Lines<T>& at, T cy, T cx, int64_t lanes, const Taps<T>& o, int64_t first) {
  const T last_y = T(p.height), last_x = T(p.width);
  const int32_t width = int32_t(p.width);
  T* __restrict w00 = o.w00 + first, * __restrict w01 = o.w01 + first, * __restrict w10 = o.w10 + first, * __restrict w11 = o.w11 + first, * __restrict fy = o.fy + first, * __restrict fx = o.fx + first;
  int32_t* __restrict i00 = o.i00 + first, * __restrict i01 = o.i01 + first, * __restrict i10 = o.i10 + first, * __restrict i11 = o.i11 + first, * __restrict y0 = o.y + first, * __restrict x0 = o.x + first;
  const T* __restrict at_y = at.y + first, * __restrict at_x = at.x + first;
#pragma omp simd
  for (int64_t i = 0; i < lanes; ++i) {
    // A pixel beyond the border reads zero like anything further out. NaN passes both comparisons and stays.
    T y = at_y[i] + cy, x = at_x[i] + cx;
    y = y < T(-2) ? T(-2) : y;
    y = y > last_y + 1 ? last_y + 1 : y;
    x = x < T(-2) ? T(-2) : x;
    x = x > last_x + 1 ? last_x + 1 : x;
    const T top = y == y ? floor_of<T>(y) : T(-2), left = x == x ? floor_of<T>(x) : T(-2);
    const T ty = y - top, tx = x - left, sy = T(1) - ty, sx = T(1) - tx;
    // Truth in floating point, 1 or 0: the only kind that compilers turn into vectors beside the rest.
    const T r0 = within<T>(top, last_y), r1 = within<T>(top + 1, last_y);
    const T c0 = within<T>(left, last_x), c1 = within<T>(left + 1, last_x);
    const T v00 = sy * sx, v01 = sy * tx, v10 = ty * sx, v11 = ty * tx;
    const int32_t base = int32_t(top) * width + int32_t(left);
    w00[i] = v00;
    w01[i] = v01;
    w10[i] = v10;
    w11[i] = v11;
    i00[i] = r0 * c0 * read<T, Backward>(v00) != T(0) ? base : -1;
    i01[i] = r0 * c1 * read<T, Backward>(v01) != T(0) ? base + 1 : -1;
    i10[i] = r1 * c0 * read<T, Backward>(v10) != T(0) ? base + width : -1;
    i11[i] = r1 * c1 * read<T, Backward>(v11) != T(0) ? base + width + 1 : -1;
    if (Backward) {
      fy[i] = ty;
      fx[i] = tx;
      y0[i] = int32_t(top);
      x0[i] = int32_t(left);
    }
  }
}

// Where a pixel lies between neighbouring tables, two on a grid of one axis, and how much each of them counts.
template <class T>
struct Place {
  int64_t first;
  T down, across;  // from the first towards the next, 0 to 1
  const T *t00, *t01, *t10, *t11;
  T w00, w01, w10, w11;
};

// Below the grid, and above it, the nearest place on it. NaN stays.
template <class T>
inline T on_grid(T value, int64_t tables) {
  const T last = T(tables - 1);
  return value < T(0) ? T(0) : (value > last ? last : value);
}

// The table before a place; the one before the last, so that another follows, if there is one.
template <class T>
inline int64_t table_before(T value, int64_t tables) {
  const int64_t most = tables > 1 ? tables - 2 : 0, found = value == value ? int64_t(value) : 0;
  return found < most ? found : most;
}

template <class T>
inline Place<T> place_on_grid(const Problem& p, const Table<T>& t, const T* field) {
  const bool two = p.tables_down > 1;
  const T v = on_grid(two ? field[0] : T(0), p.tables_down),
          u = on_grid(field[two ? p.field_component : 0], p.tables_across);
  const int64_t row = table_before(v, p.tables_down), column = table_before(u, p.tables_across), size = 3 * t.lanes;
  const int64_t first = row * p.tables_across + column;
  const T fv = v - T(row), fu = u - T(column);
  const T* upper = t.blended + first * size;
  const T* lower = two ? upper + p.tables_across * size : upper;
  return {first,         fv,     fu, upper, upper + size, lower, lower + size, (1 - fv) * (1 - fu), (1 - fv) * fu,
          fv * (1 - fu), fv * fu};
}

template <class T, bool TwoAxes>
inline __attribute__((always_inline)) T blended(const Place<T>& p, int64_t i) {
  const T value = p.w00 * p.t00[i] + p.w01 * p.t01[i];
  return TwoAxes ? value + p.w10 * p.t10[i] + p.w11 * p.t11[i] : value;
}

template <class T, bool TwoAxes>
inline void blend_tables(int64_t lanes, const Place<T>& place, T* __restrict y, T* __restrict x, T* __restrict mask) {
#pragma omp simd
  for (int64_t i = 0; i < lanes; ++i) {
    y[i] = blended<T, TwoAxes>(place, i);
    x[i] = blended<T, TwoAxes>(place, lanes + i);
    mask[i] = blended<T, TwoAxes>(place, 2 * lanes + i);
  }
}

template <class T>
inline void blend_samples(const Problem& p, const Table<T>& t, const T* field, Tile tile, const Lines<T>& out,
                          T* mask) {
  const auto blend = p.tables_down > 1 ? blend_tables<T, true> : blend_tables<T, false>;
  for (int64_t n = 0; n < tile.count; ++n) {
    const int64_t pixel = tile.begin + n, row = pixel / p.out_width, at = n * t.lanes;
    const T* f = field + field_base<T>(p, tile.image, 0, row, pixel - row * p.out_width);
    blend(t.lanes, place_on_grid(p, t, f), out.y + at, out.x + at, mask + at);
  }
}

template <class T>
inline void find_masks(const Problem& p, const T* mask, int64_t group, Tile tile, int64_t lanes, T* out) {
  const int64_t cells = p.cells(), pixels = p.pixels();
  const T* m = mask + (tile.image * p.fields + group) * cells * pixels + tile.begin;
  for (int64_t i = 0; i < cells; ++i)
    for (int64_t n = 0; n < tile.count; ++n) out[n * lanes + i] = m[i * pixels + n];
}

template <class T, bool Backward>
void find_taps(const Problem& p, const Table<T>& t, const T* field, const T* mask, int64_t group, Tile tile,
               const Lines<T>& lines, const Taps<T>& out) {
  const T middle_y = T(p.dilation_height * (p.kernel_height - 1)) / 2 - T(p.top);
  const T middle_x = T(p.dilation_width * (p.kernel_width - 1)) / 2 - T(p.left);
  if (p.rule == kBlend)
    blend_samples(p, t, field, tile, lines, out.mask);
  else
    find_positions(p, t, field, group, tile, lines);
  for (int64_t n = 0; n < tile.count; ++n) {
    const int64_t pixel = tile.begin + n, row = pixel / p.out_width, column = pixel - row * p.out_width;
    const T cy = T(row * p.stride_height) + middle_y, cx = T(column * p.stride_width) + middle_x;
    locate<T, Backward>(p, lines, cy, cx, t.lanes, out, n * t.lanes);
  }
  if (mask) find_masks(p, mask, group, tile, t.lanes, out.mask);
}

template <class T>
inline void ball_gradient(const Problem& p, const Table<T>& t, const T* f, const T* __restrict gy,
                          const T* __restrict gx, T* out) {
  const int64_t s = p.field_component;
  const T m11 = f[0], m12 = f[s], m22 = f[2 * s], wx = f[3 * s], wy = f[4 * s];
  T d11 = 0, d12 = 0, d22 = 0, dx = 0, dy = 0;
  for (int64_t i = 0; i < t.lanes; ++i) {
    const Norm<T> n = ball_norm(t, i, m11, m12, m22, wx, wy);
    const T radius = T(1) / at_least(least_norm<T>(), n.value);
    const T along = gy[i] * t.y[i] + gx[i] * t.x[i];
    // Where a bound holds nothing changes: a factor of 0, since a branch would cost the vectors.
    const T free_norm = n.value < least_norm<T>() ? T(0) : T(1),
            free_square = n.square < least_square<T>() ? T(0) : T(1);
    const T norm = -free_norm * along * radius * radius;
    const T square = free_square * norm / (2 * n.root * t.square[i]);
    d11 += square * t.xx[i];
    d12 += square * t.xy[i];
    d22 += square * t.yy[i];
    dx += norm * t.unit_x[i];
    dy += norm * t.unit_y[i];
  }
  out[0] += d11;
  out[s] += d12;
  out[2 * s] += d22;
  out[3 * s] += dx;
  out[4 * s] += dy;
}

// Whether the place that blends follows this coordinate: not beyond the grid.
template <class T>
inline T moves(T value, int64_t tables) {
  return value >= T(0) && value <= T(tables - 1) ? T(1) : T(0);
}

// The sum over all samples of their gradient, times the difference of two neighbouring tables, on two lines of the
// grid.
template <class T>
inline T slope(int64_t lanes, const SampleGradients<T>& g, int64_t at, const T* from, const T* to, T share,
               const T* next_from, const T* next_to) {
  const T* gradients[3] = {g.y + at, g.x + at, g.mask + at};
  T sum = 0;
  for (int64_t c = 0; c < 3; ++c, from += lanes, to += lanes, next_from += lanes, next_to += lanes) {
    const T* gradient = gradients[c];
#pragma omp simd reduction(+ : sum)
    for (int64_t i = 0; i < lanes; ++i)
      sum += gradient[i] * ((1 - share) * (to[i] - from[i]) + share * (next_to[i] - next_from[i]));
  }
  return sum;
}

template <class T>
inline void add_to_table(int64_t lanes, const SampleGradients<T>& g, int64_t at, double share, double* __restrict out) {
  const T* __restrict y = g.y + at, * __restrict x = g.x + at, * __restrict mask = g.mask + at;
#pragma omp simd
  for (int64_t i = 0; i < lanes; ++i) {
    out[i] += share * y[i];
    out[lanes + i] += share * x[i];
    out[2 * lanes + i] += share * mask[i];
  }
}

template <class T>
void blend_gradient(const Problem& p, const Table<T>& t, const T* field, Tile tile, const SampleGradients<T>& g,
                    T* grad_field, double* grad_tables) {
  const bool two = p.tables_down > 1;
  const int64_t size = 3 * t.lanes;
  for (int64_t n = 0; n < tile.count; ++n) {
    const int64_t pixel = tile.begin + n, row = pixel / p.out_width, at = n * t.lanes;
    const int64_t base = field_base<T>(p, tile.image, 0, row, pixel - row * p.out_width);
    const T* f = field + base;
    const Place<T> o = place_on_grid(p, t, f);
    if (grad_field) {
      T* across = grad_field + base + (two ? p.field_component : 0);
      *across += moves(f[two ? p.field_component : 0], p.tables_across) *
                 slope(t.lanes, g, at, o.t00, o.t01, o.down, o.t10, o.t11);
      if (two)
        grad_field[base] += moves(f[0], p.tables_down) * slope(t.lanes, g, at, o.t00, o.t10, o.across, o.t01, o.t11);
    }
    if (!grad_tables) continue;
    double* out = grad_tables + o.first * size;
    add_to_table(t.lanes, g, at, o.w00, out);
    add_to_table(t.lanes, g, at, o.w01, out + size);
    if (!two) continue;
    add_to_table(t.lanes, g, at, o.w10, out + p.tables_across * size);
    add_to_table(t.lanes, g, at, o.w11, out + (p.tables_across + 1) * size);
  }
}

template <class T>
inline void gradient_at(const Problem& p, const Table<T>& t, const T* f, const T* gy, const T* gx, T* exponent,
                        T* out) {
  switch (p.rule) {
    case kBall: return ball_gradient(p, t, f, gy, gx, out);
    case kLinear: return formula_gradient<T, false>(p, t, f, gy, gx, exponent, out);
    case kRadial: return formula_gradient<T, true>(p, t, f, gy, gx, exponent, out);
    default:
      for (int64_t i = 0; i < p.cells(); ++i) {
        out[i * p.field_cell] += gy[i];
        out[i * p.field_cell + p.field_component] += gx[i];
      }
  }
}

template <class T>
void field_gradient(const Problem& p, const Table<T>& t, const T* field, int64_t group, Tile tile,
                    const SampleGradients<T>& g, T* grad_field) {
  const int64_t cells = p.cells();
  if (has_images_of_offsets(p)) {
    T* out = grad_field + field_base<T>(p, tile.image, group, 0, 0) + tile.begin;
    for (int64_t i = 0; i < cells; ++i)
      for (int64_t n = 0; n < tile.count; ++n) {
        out[i * p.field_cell + n] += g.y[n * t.lanes + i];
        out[i * p.field_cell + p.field_component + n] += g.x[n * t.lanes + i];
      }
    return;
  }
  for (int64_t n = 0; n < tile.count; ++n) {
    const int64_t pixel = tile.begin + n, row = pixel / p.out_width, column = pixel - row * p.out_width;
    const int64_t base = field_base<T>(p, tile.image, group, row, column);
    const T *gy = g.y + n * t.lanes, *gx = g.x + n * t.lanes;
    gradient_at(p, t, field + base, gy, gx, g.exponent, grad_field + base);
  }
}

}  // namespace metric_zoo::ISA

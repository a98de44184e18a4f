// The blend rule for an image of one channel, in one pass: samples are blended, located, read and added in registers.
#pragma once
#include "samples.h"
#include "taps.h"

namespace metric_zoo::ISA {

// Whether all samples between the tables from `first` on, and the pixels right of and below them, lie in the image. The
// margin is what rounding may add to a position.
template <class T>
inline bool all_inside(const Problem& p, const Table<T>& t, int64_t first, T cy, T cx) {
  const T* box = t.boxes + 4 * first;
  const T largest = T(p.height + p.width) + std::abs(box[0]) + std::abs(box[1]) + std::abs(box[2]) + std::abs(box[3]);
  const T margin = T(1) / 64 + 4 * std::numeric_limits<T>::epsilon() * largest;
  return box[0] + cy >= margin && box[1] + cy <= T(p.height - 1) - margin && box[2] + cx >= margin &&
         box[3] + cx <= T(p.width - 1) - margin;
}

// Neighbouring pixels of a row that lie between the same tables: how much each table counts for each.
template <class T, int64_t L>
struct Run {
  Place<T> place;  // of the first
  T w00[L], w01[L], w10[L], w11[L];
};

// At least L pixels from this one on, whose samples all lie in the image?
template <class T, int64_t L>
inline bool find_run(const Problem& p, const Table<T>& t, const T* field, int64_t step, T cy, T cx, Run<T, L>& run) {
  for (int64_t l = 0; l < L; ++l) {
    const Place<T> place = place_on_grid(p, t, field + l * step);
    if (l == 0) run.place = place;
    if (place.first != run.place.first || place.w00 != place.w00) return false;
    run.w00[l] = place.w00;
    run.w01[l] = place.w01;
    run.w10[l] = place.w10;
    run.w11[l] = place.w11;
  }
  return all_inside(p, t, run.place.first, cy, cx) && all_inside(p, t, run.place.first, cy, cx + T(L - 1));
}

template <class T, int64_t L, bool TwoAxes>
inline __attribute__((always_inline)) Vector<T, L> blended_run(const Run<T, L>& r, int64_t i) {
  const Place<T>& p = r.place;
  const Vector<T, L> value = load<T, L>(r.w00) * p.t00[i] + load<T, L>(r.w01) * p.t01[i];
  return TwoAxes ? value + load<T, L>(r.w10) * p.t10[i] + load<T, L>(r.w11) * p.t11[i] : value;
}

// Where parameters change slowly the pixels of a run read, for most samples, a run of the image: plain loads. Positions
// are positive here, so that conversion to whole numbers is the floor.
template <class T, int64_t L, bool TwoAxes>
inline void add_run(const Problem& p, const Table<T>& t, const Run<T, L>& run, const T* image, T cy, T cx, T* out) {
  using V = Vector<T, L>;
  using I = Vector<WholeOf<T>, L>;
  V across, sum = load<T, L>(out);
  I step;
  for (int64_t l = 0; l < L; ++l) across[l] = cx + T(l), step[l] = WholeOf<T>(l);
  for (int64_t i = 0; i < p.cells(); ++i) {
    const V y = blended_run<T, L, TwoAxes>(run, i) + cy, x = blended_run<T, L, TwoAxes>(run, t.lanes + i) + across;
    const I top = __builtin_convertvector(y, I), left = __builtin_convertvector(x, I);
    const V fy = y - __builtin_convertvector(top, V), fx = x - __builtin_convertvector(left, V);
    const I apart = (top - top[0]) | (left - left[0] - step);
    V v00, v01, v10, v11;
    if (!any<WholeOf<T>, L>(apart)) {
      const T* from = image + int64_t(top[0]) * p.width + left[0];
      v00 = load<T, L>(from);
      v01 = load<T, L>(from + 1);
      v10 = load<T, L>(from + p.width);
      v11 = load<T, L>(from + p.width + 1);
    } else {
      for (int64_t l = 0; l < L; ++l) {
        const T* from = image + int64_t(top[l]) * p.width + left[l];
        v00[l] = from[0];
        v01[l] = from[1];
        v10[l] = from[p.width];
        v11[l] = from[p.width + 1];
      }
    }
    const V upper = v00 + fx * (v01 - v00), lower = v10 + fx * (v11 - v10);
    sum += blended_run<T, L, TwoAxes>(run, 2 * t.lanes + i) * (upper + fy * (lower - upper));
  }
  store<T, L>(out, sum);
}

// Near the border, where corners may lie outside; where the parameters jump; and at places that are NaN.
template <class T>
inline T sum_anywhere(const Problem& p, const Table<T>& t, const T* field, Tile pixel, const T* image,
                      const Lines<T>& lines, const Taps<T>& taps) {
  find_taps<T, false>(p, t, field, nullptr, 0, pixel, lines, taps);
  T sum = 0;
#pragma omp simd reduction(+ : sum)
  for (int64_t i = 0; i < p.cells(); ++i)
    sum += taps.mask[i] *
           (taps.w00[i] * pixel_or_zero(image, taps.i00[i]) + taps.w01[i] * pixel_or_zero(image, taps.i01[i]) +
            taps.w10[i] * pixel_or_zero(image, taps.i10[i]) + taps.w11[i] * pixel_or_zero(image, taps.i11[i]));
  return sum;
}

// Adds to a tile's outputs.
template <class T>
void blend_pixels(const Problem& p, const Table<T>& t, const T* field, Tile tile, const T* image, const Lines<T>& lines,
                  const Taps<T>& taps, T* out) {
  constexpr int64_t L = kLanes<T>;
  const T middle_y = T(p.dilation_height * (p.kernel_height - 1)) / 2 - T(p.top);
  const T middle_x = T(p.dilation_width * (p.kernel_width - 1)) / 2 - T(p.left);
  Run<T, L> run;
  for (int64_t n = 0; n < tile.count;) {
    const int64_t pixel = tile.begin + n, row = pixel / p.out_width, column = pixel - row * p.out_width;
    const T* f = field + field_base<T>(p, tile.image, 0, row, column);
    const T cy = T(row * p.stride_height) + middle_y, cx = T(column * p.stride_width) + middle_x;
    const bool room = n + L <= tile.count && column + L <= p.out_width && p.stride_width == 1;
    if (!room || !find_run<T, L>(p, t, f, p.field_column, cy, cx, run)) {
      out[n] += sum_anywhere(p, t, field, {tile.image, pixel, 1}, image, lines, taps);
      ++n;
      continue;
    }
    if (p.tables_down > 1)
      add_run<T, L, true>(p, t, run, image, cy, cx, out + n);
    else
      add_run<T, L, false>(p, t, run, image, cy, cx, out + n);
    n += L;
  }
}

}  // namespace metric_zoo::ISA

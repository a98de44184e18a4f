// Depthwise, with samples that lie alike at every pixel: planes are filtered one by one, rows read as they lie.
#include <algorithm>
#include <vector>

#include "buffer.h"
#include "kernels.h"
#include "passes.h"
#include "threads.h"

namespace metric_zoo {

namespace {

// A plane with as many columns beside it as its samples reach beyond, zeros.
struct Margin {
  int64_t before, width;
};

Margin margin_of(const Stencil& s) {
  int64_t least = 0, most = 0;
  for (int64_t i = 0; i < s.first[s.channels]; ++i) {
    least = std::min(least, s.columns[i]);
    most = std::max(most, s.columns[i]);
  }
  const int64_t before = -least;
  return {before, before + std::max(s.width, most + s.out_width)};
}

template <class T>
void widen(const Stencil& s, Margin m, const T* plane, int64_t row, T* out) {
  T* to = out + row * m.width;
  std::fill(to, to + m.before, T(0));
  std::copy(plane + row * s.width, plane + (row + 1) * s.width, to + m.before);
  std::fill(to + m.before + s.width, to + m.width, T(0));
}

// Samples are in the order of their rows, so those that a row of the output has are a run of them.
template <class T>
void filter_row(const Stencil& s, Margin m, const Kernels<T>& k, int64_t channel, const T* plane,
                const Shift<T>* shifts, const T* bias, int64_t row, T* out) {
  std::fill(out, out + s.out_width, bias ? bias[channel] : T(0));
  int64_t first = s.first[channel], last = s.first[channel + 1];
  while (first < last && s.rows[first] + row < 0) ++first;
  while (last > first && s.rows[last - 1] + row >= s.height) --last;
  k.add_shifted(s.out_width, plane + row * m.width + m.before, shifts + first, last - first, out);
}

}  // namespace

template <class T>
void stencil(const Stencil& s, const T* input, const T* weights, const T* bias, T* output) {
  const Kernels<T>& k = kernels<T>();
  const Margin m = margin_of(s);
  std::vector<Shift<T>> shifts(size_t(s.first[s.channels]));
  for (size_t i = 0; i < shifts.size(); ++i) shifts[i] = {s.rows[i] * m.width + s.columns[i], weights[i]};
  const int64_t planes = s.batch * s.channels, in_size = s.height * s.width, out_size = s.out_height * s.out_width;
  const auto widen_row = [&](int64_t plane, int64_t row, T* wide) { widen(s, m, input + plane * in_size, row, wide); };
  const auto filter = [&](int64_t plane, int64_t row, const T* wide) {
    filter_row(s, m, k, plane % s.channels, wide, shifts.data(), bias, row,
               output + plane * out_size + row * s.out_width);
  };
  // Many planes: one a thread. Few: the rows of one are shared out. Never one within the other, which would have
  // threads made anew for every plane.
  if (planes >= 2 * s.threads) {
    std::vector<Buffer<T>> wide;
    for (int64_t i = 0; i < s.threads; ++i) wide.emplace_back(s.height * m.width);
#pragma omp parallel for num_threads(int(s.threads)) schedule(dynamic, 1)
    for (int64_t plane = 0; plane < planes; ++plane) {
      T* own = wide[this_thread()].get();
      for (int64_t row = 0; row < s.height; ++row) widen_row(plane, row, own);
      for (int64_t row = 0; row < s.out_height; ++row) filter(plane, row, own);
    }
    return;
  }
  const Buffer<T> wide(s.height * m.width);
  for (int64_t plane = 0; plane < planes; ++plane) {
#pragma omp parallel for num_threads(int(s.threads)) schedule(static)
    for (int64_t row = 0; row < s.height; ++row) widen_row(plane, row, wide.get());
#pragma omp parallel for num_threads(int(s.threads)) schedule(static)
    for (int64_t row = 0; row < s.out_height; ++row) filter(plane, row, wide.get());
  }
}

template void stencil(const Stencil&, const float*, const float*, const float*, float*);
template void stencil(const Stencil&, const double*, const double*, const double*, double*);

}  // namespace metric_zoo

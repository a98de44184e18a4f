#include "workspace.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace metric_zoo {

// A position that is not finite lies nowhere inside.
template <class T>
static void find_box(const Problem& p, const T* tables, int64_t first, T* box) {
  std::fill(box, box + 4, T(0));
  const int64_t row = first / p.tables_across, column = first % p.tables_across;
  for (int64_t r = row; r <= std::min(row + 1, p.tables_down - 1); ++r)
    for (int64_t c = column; c <= std::min(column + 1, p.tables_across - 1); ++c)
      for (int64_t i = 0; i < p.cells(); ++i)
        for (int axis = 0; axis < 2; ++axis) {
          const T at = tables[((r * p.tables_across + c) * p.cells() + i) * 3 + axis];
          T *least = box + 2 * axis, *most = least + 1;
          *least = at == at ? std::min(*least, at) : -std::numeric_limits<T>::infinity();
          *most = std::max(*most, at);
        }
}

template <class T>
Constants<T>::Constants(const Problem& p, const Kernels<T>& k, const Tensors<T>& tensors) {
  const int64_t lanes = lanes_of(p, k);
  const int64_t tables = p.tables(), terms = p.terms();
  memory = Buffer<T>((8 + 3 * (tables + terms)) * lanes + 4 * tables);
  T* next = memory.get();
  const auto array = [&] {
    T* a = next;
    next += lanes;
    return a;
  };
  table = {lanes,
           array(),
           array(),
           array(),
           array(),
           array(),
           array(),
           array(),
           array(),
           T(tensors.table_eps),
           next,
           next + 3 * tables * lanes,
           next + 3 * (tables + terms) * lanes};
  for (int64_t i = 0; i < lanes; ++i) {
    // Beyond the last cell: a sample of any finite place, which nobody reads.
    T row[4] = {T(0), T(0), T(1), T(0)};
    if (i < p.cells() && p.rule == kBall) std::copy(tensors.table + 4 * i, tensors.table + 4 * i + 4, row);
    if (i < p.cells() && p.starts_from_grid()) {
      row[0] = (T(i % p.kernel_width) - T(p.kernel_width - 1) / 2) * T(p.dilation_width);
      row[1] = (T(i / p.kernel_width) - T(p.kernel_height - 1) / 2) * T(p.dilation_height);
    }
    const T x = row[2], y = row[3], square = x * x + y * y, length = std::sqrt(square);
    table.x[i] = row[0];
    table.y[i] = row[1];
    table.xx[i] = x * x;
    table.xy[i] = 2 * x * y;
    table.yy[i] = y * y;
    table.square[i] = square;
    table.unit_x[i] = x / length;
    table.unit_y[i] = y / length;
    for (int64_t k = 0; k < 3 * tables; ++k)
      table.blended[k * lanes + i] = i < p.cells() ? tensors.table[(k / 3 * p.cells() + i) * 3 + k % 3] : T(0);
    for (int64_t k = 0; k < 3 * terms; ++k)
      table.terms[k * lanes + i] = i < p.cells() ? tensors.table[i * 3 * terms + k] : T(0);
  }
  for (int64_t k = 0; k < tables; ++k) find_box(p, tensors.table, k, table.boxes + 4 * k);
}

template <class T>
Workspace<T>::Workspace(const Problem& p, const Kernels<T>& k, const Plan<T>& plan, int64_t lanes, bool masked,
                        Pass pass) {
  int64_t longest = 1;
  for (const Piece& s : plan.pieces) longest = std::max(longest, plan.row(p, s));
  const int64_t sites = plan.block * lanes, channels = round_up(p.channels, k.columns);
  const int64_t columns_size = p.depthwise() ? channels : round_up(plan.block * longest, k.columns);
  const int64_t pixels_size = round_up(plan.block * p.out_channels, k.columns);
  const int64_t panel_size = std::max(plan.block, int64_t(1)) * k.columns;
  numbers = Buffer<T>(12 * sites + lanes + 2 * channels + columns_size + pixels_size + panel_size);
  indices = Buffer<int32_t>(6 * sites);
  T* next = numbers.get();
  const auto take = [&](int64_t size) {
    T* a = next;
    next += size;
    return a;
  };
  int32_t* next_index = indices.get();
  const auto take_index = [&] {
    int32_t* a = next_index;
    next_index += sites;
    return a;
  };
  columns = take(columns_size);
  pixels = take(pixels_size);
  panel = take(panel_size);
  lines.zero = take(channels);
  lines.dump = take(channels);
  std::fill(lines.zero, lines.zero + channels, T(0));
  std::fill(lines.dump, lines.dump + channels, T(0));
  lines.y = take(sites);
  lines.x = take(sites);
  lines.exponent = take(lanes);
  taps.w00 = take(sites);
  taps.w01 = take(sites);
  taps.w10 = take(sites);
  taps.w11 = take(sites);
  taps.fy = take(sites);
  taps.fx = take(sites);
  taps.mask = masked ? take(sites) : nullptr;
  taps.i00 = take_index();
  taps.i01 = take_index();
  taps.i10 = take_index();
  taps.i11 = take_index();
  taps.y = take_index();
  taps.x = take_index();
  gradients = {};
  if (pass == Pass::kBackward) gradients = {take(sites), take(sites), masked ? take(sites) : nullptr, lines.exponent};
}

template <class T>
static T* from(T* array, int64_t site) {
  return array ? array + site : nullptr;
}

template <class T>
Taps<T> Workspace<T>::taps_from(int64_t site) const {
  return {taps.w00 + site, taps.w01 + site, taps.w10 + site,      taps.w11 + site, taps.i00 + site,
          taps.i01 + site, taps.i10 + site, taps.i11 + site,      taps.fy + site,  taps.fx + site,
          taps.y + site,   taps.x + site,   from(taps.mask, site)};
}

template <class T>
SampleGradients<T> Workspace<T>::gradients_from(int64_t site) const {
  return {from(gradients.y, site), from(gradients.x, site), from(gradients.mask, site), gradients.exponent};
}

template struct Constants<float>;
template struct Constants<double>;
template struct Workspace<float>;
template struct Workspace<double>;

}  // namespace metric_zoo

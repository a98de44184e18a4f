#include "plan.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace metric_zoo {

constexpr int64_t kRow = 1152;            // numbers in one pixel's samples of one slice
constexpr int64_t kLeastChannels = 16;
constexpr int64_t kBlockBytes = 512 << 10;  // of samples: what stays in a second-level cache
constexpr int64_t kMostPixels = 256;
constexpr int64_t kBlocksPerThread = 4;
constexpr int64_t kFewOutputs = 4;

static int64_t round_up(int64_t value, int64_t to) { return (value + to - 1) / to * to; }

// Cells of a kernel, up to whole vectors.
template <class T>
static int64_t lanes_of(const Problem& p, const Kernels<T>& k) { return round_up(p.cells(), k.columns / 2); }

static int64_t channels_per_slice(const Problem& p) {
  if (p.depthwise()) return p.channels;
  int64_t most = kLeastChannels;
  while (2 * most * p.cells() <= kRow) most *= 2;
  return most;
}

static Slice slice_at(const Problem& p, int64_t channel, int64_t most) {
  const int64_t size = p.group_channels(), field_size = p.channels / p.fields;
  const int64_t group = channel / size, field = channel / field_size, end = (field + 1) * field_size;
  if (p.depthwise()) return {channel, end - channel, 1, group, field};
  const bool starts_a_group = channel % size == 0;
  const int64_t whole = std::min(end - channel, most) / size;
  if (starts_a_group && whole >= 1) return {channel, size, whole, group, field};
  const int64_t count = std::min({(group + 1) * size, end, channel + most}) - channel;
  return {channel, count, 1, group, field};
}

template <class T>
Plan<T>::Plan(const Problem& p, const Kernels<T>& k, Pass pass) {
  few = !p.depthwise() && p.group_outputs() <= kFewOutputs;
  const int64_t most = channels_per_slice(p), outputs = p.depthwise() ? 1 : p.group_outputs();
  int64_t longest = 1;
  packed_size = plain_size = 0;
  for (int64_t channel = 0; channel < p.channels; channel += pieces.back().channels()) {
    const Slice s = slice_at(p, channel, most);
    const int64_t row_size = p.cells() * s.per_group;
    int64_t packed = outputs * row_size;
    if (!few && !p.depthwise())
      packed = pass == Pass::kForward ? row_size * round_up(outputs, k.columns) : outputs * round_up(row_size, k.columns);
    pieces.push_back({s, packed_size, plain_size});
    packed_size += s.groups * packed;
    plain_size += s.groups * outputs * row_size;
    longest = std::max(longest, row_size * s.groups);
  }
  if (p.depthwise()) longest = 1;
  const int64_t lanes = lanes_of(p, k);
  const int64_t pixel_bytes = longest * int64_t(sizeof(T)) + lanes * int64_t(12 * sizeof(T) + 6 * sizeof(int32_t));
  const int64_t fits = kBlockBytes / pixel_bytes;
  const int64_t all = p.batch * p.pixels(), fair = all / (kBlocksPerThread * p.threads);
  block = std::min({fits, fair, kMostPixels});
  const int64_t step = few || p.depthwise() ? 1 : k.rows;  // of a register block
  block = std::min(std::max(block / step * step, step), all);
  blocks = (all + block - 1) / block;
}

template <class T>
Block Plan<T>::at(const Problem& p, int64_t index) const {
  return {index * block, std::min(block, p.batch * p.pixels() - index * block)};
}

// weight[o, c, i] of a group of a piece.
template <class T>
struct Weights {
  const Problem& p;
  T* origin;
  Weights(const Problem& p_, const Piece& s, int64_t group, T* weight)
      : p(p_),
        origin(weight + (s.group + group) * p.group_outputs() * p.weight_out +
               s.channel % p.group_channels() * p.weight_channel) {}
  T& at(int64_t o, int64_t i, int64_t c) const {
    return origin[o * p.weight_out + c * p.weight_channel + i * p.weight_cell];
  }
};

template <class T>
static void pack_depthwise(const Problem& p, const Piece& s, const T* weight, T* out) {
  for (int64_t i = 0; i < p.cells(); ++i)
    for (int64_t c = 0; c < s.channels(); ++c)
      out[i * s.channels() + c] = weight[(s.channel + c) * p.weight_out + i * p.weight_cell];
}

// Columns [first, first + width) of the matrix that the panel holds.
template <class T>
static void pack_panel(const Problem& p, const Piece& s, const Weights<const T>& w, Pass pass, int64_t columns,
                       int64_t first, T* out) {
  const int64_t row_size = p.cells() * s.per_group, outputs = p.group_outputs();
  const bool forward = pass == Pass::kForward;
  const int64_t depth = forward ? row_size : outputs, count = forward ? outputs : row_size;
  std::fill(out, out + depth * columns, T(0));
  const int64_t end = std::min(columns, count - first);
  // In the order in which the weight lies, so that every output's numbers are read in a row.
  const bool by_cell = p.weight_cell > p.weight_channel;
  const int64_t outer = by_cell ? p.cells() : s.per_group, inner = by_cell ? s.per_group : p.cells();
  for (int64_t a = 0; a < outer && forward; ++a)
    for (int64_t b = 0; b < inner; ++b) {
      const int64_t i = by_cell ? a : b, c = by_cell ? b : a;
      for (int64_t j = 0; j < end; ++j) out[(i * s.per_group + c) * columns + j] = w.at(first + j, i, c);
    }
  for (int64_t o = 0; o < outputs && !forward; ++o)
    for (int64_t j = 0; j < end; ++j)
      out[o * columns + j] = w.at(o, (first + j) / s.per_group, (first + j) % s.per_group);
}

template <class T>
static void pack_rows(const Problem& p, const Piece& s, const Weights<const T>& w, T* out) {
  for (int64_t o = 0; o < p.group_outputs(); ++o)
    for (int64_t i = 0; i < p.cells(); ++i)
      for (int64_t c = 0; c < s.per_group; ++c) *out++ = w.at(o, i, c);
}

template <class T>
Buffer<T> pack_weights(const Problem& p, const Kernels<T>& k, const Plan<T>& plan, Pass pass, const T* weight) {
  Buffer<T> packed(plan.packed_size);
  for (const Piece& s : plan.pieces) {
    T* out = packed.get() + s.packed;
    if (p.depthwise()) {
      pack_depthwise(p, s, weight, out);
      continue;
    }
    const int64_t row_size = p.cells() * s.per_group, outputs = p.group_outputs();
    const int64_t depth = pass == Pass::kForward ? row_size : outputs;
    const int64_t width = pass == Pass::kForward ? outputs : row_size;
    const int64_t panels = plan.few ? 1 : round_up(width, k.columns) / k.columns;
    const int64_t size = plan.few ? outputs * row_size : depth * k.columns;
#pragma omp parallel for num_threads(int(p.threads)) schedule(static)
    for (int64_t index = 0; index < s.groups * panels; ++index) {
      const Weights<const T> w(p, s, index / panels, weight);
      if (plan.few)
        pack_rows(p, s, w, out + index * size);
      else
        pack_panel(p, s, w, pass, k.columns, index % panels * k.columns, out + index * size);
    }
  }
  return packed;
}

template <class T>
static T total(const std::vector<Buffer<T>>& parts, int64_t at) {
  T sum = parts[0].get()[at];
  for (size_t i = 1; i < parts.size(); ++i) sum += parts[i].get()[at];
  return sum;
}

template <class T>
void unpack_weights(const Problem& p, const Plan<T>& plan, const std::vector<Buffer<T>>& parts, T* grad_weight) {
  for (const Piece& s : plan.pieces) {
    if (p.depthwise()) {
      for (int64_t i = 0; i < p.cells(); ++i)
        for (int64_t c = 0; c < s.channels(); ++c)
          grad_weight[(s.channel + c) * p.weight_out + i * p.weight_cell] = total(parts, s.plain + i * s.channels() + c);
      continue;
    }
    const int64_t outputs = p.group_outputs(), row_size = p.cells() * s.per_group;
#pragma omp parallel for num_threads(int(p.threads)) schedule(static)
    for (int64_t index = 0; index < s.groups * outputs; ++index) {
      const Weights<T> w(p, s, index / outputs, grad_weight);
      for (int64_t i = 0; i < p.cells(); ++i)
        for (int64_t c = 0; c < s.per_group; ++c)
          w.at(index % outputs, i, c) = total(parts, s.plain + index * row_size + i * s.per_group + c);
    }
  }
}

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
  const int64_t tables = p.tables();
  memory = Buffer<T>((8 + 3 * tables) * lanes + 4 * tables);
  T* next = memory.get();
  const auto array = [&] { T* a = next; next += lanes; return a; };
  table = {lanes, array(), array(), array(), array(), array(), array(), array(), array(), T(tensors.table_eps), next, next + 3 * tables * lanes};
  for (int64_t i = 0; i < lanes; ++i) {
    // Beyond the last cell: a sample of any finite place, which nobody reads.
    T row[4] = {T(0), T(0), T(1), T(0)};
    if (i < p.cells() && p.rule == kBall) std::copy(tensors.table + 4 * i, tensors.table + 4 * i + 4, row);
    if (i < p.cells() && p.rule == kOffset) {
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
  numbers = Buffer<T>(12 * sites + 2 * channels + columns_size + pixels_size + panel_size);
  indices = Buffer<int32_t>(6 * sites);
  T* next = numbers.get();
  const auto take = [&](int64_t size) { T* a = next; next += size; return a; };
  int32_t* next_index = indices.get();
  const auto take_index = [&] { int32_t* a = next_index; next_index += sites; return a; };
  columns = take(columns_size);
  pixels = take(pixels_size);
  panel = take(panel_size);
  lines.zero = take(channels);
  lines.dump = take(channels);
  std::fill(lines.zero, lines.zero + channels, T(0));
  std::fill(lines.dump, lines.dump + channels, T(0));
  lines.y = take(sites);
  lines.x = take(sites);
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
  if (pass == Pass::kBackward) gradients = {take(sites), take(sites), masked ? take(sites) : nullptr};
}

template <class T>
static T* from(T* array, int64_t site) { return array ? array + site : nullptr; }

template <class T>
Taps<T> Workspace<T>::taps_from(int64_t site) const {
  return {taps.w00 + site, taps.w01 + site, taps.w10 + site, taps.w11 + site, taps.i00 + site,
          taps.i01 + site, taps.i10 + site, taps.i11 + site, taps.fy + site,  taps.fx + site,
          taps.y + site,   taps.x + site,   from(taps.mask, site)};
}

template <class T>
SampleGradients<T> Workspace<T>::gradients_from(int64_t site) const {
  return {from(gradients.y, site), from(gradients.x, site), from(gradients.mask, site)};
}

#define METRIC_ZOO_INSTANTIATE(T)                                                                                  \
  template struct Plan<T>;                                                                                         \
  template struct Constants<T>;                                                                                    \
  template struct Workspace<T>;                                                                                    \
  template Buffer<T> pack_weights(const Problem&, const Kernels<T>&, const Plan<T>&, Pass, const T*);              \
  template void unpack_weights(const Problem&, const Plan<T>&, const std::vector<Buffer<T>>&, T*);
METRIC_ZOO_INSTANTIATE(float)
METRIC_ZOO_INSTANTIATE(double)

}  // namespace metric_zoo

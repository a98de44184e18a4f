#include "weights.h"

#include <algorithm>

namespace metric_zoo {

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
          grad_weight[(s.channel + c) * p.weight_out + i * p.weight_cell] =
              total(parts, s.plain + i * s.channels() + c);
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

#define METRIC_ZOO_INSTANTIATE(T)                                                                     \
  template Buffer<T> pack_weights(const Problem&, const Kernels<T>&, const Plan<T>&, Pass, const T*); \
  template void unpack_weights(const Problem&, const Plan<T>&, const std::vector<Buffer<T>>&, T*);
METRIC_ZOO_INSTANTIATE(float)
METRIC_ZOO_INSTANTIATE(double)

}  // namespace metric_zoo

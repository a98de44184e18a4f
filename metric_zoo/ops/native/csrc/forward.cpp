// For every tile of pixels: find where its samples read, gather a slice of channels, multiply, next slice.
#include "passes.h"

#include <algorithm>
#if defined(_OPENMP)
#include <omp.h>
#endif

#include "plan.h"
#include "transpose.h"

namespace metric_zoo {

static int this_thread() {
#if defined(_OPENMP)
  return omp_get_thread_num();
#else
  return 0;
#endif
}

template <class T>
static void begin_with_bias(const Problem& p, int64_t count, const T* bias, T* rows) {
  for (int64_t n = 0; n < count; ++n)
    if (bias)
      std::copy(bias, bias + p.out_channels, rows + n * p.out_channels);
    else
      std::fill(rows + n * p.out_channels, rows + (n + 1) * p.out_channels, T(0));
}

template <class T>
static void add_slice(const Problem& p, const Kernels<T>& k, const Plan<T>& plan, const Piece& s, Tile tile,
                      const T* image, const T* packed, int64_t lanes, Workspace<T>& w, T* rows) {
  const T* weights = packed + s.packed;
  if (p.depthwise()) {
    k.depthwise(p, s, image, w.taps, lanes, tile.count, w.lines, weights, rows);
    return;
  }
  k.gather(p, s, image, w.taps, lanes, tile.count, w.lines, w.columns);
  const int64_t outputs = p.group_outputs(), depth = p.cells() * s.per_group, width = plan.row(p, s);
  const int64_t panels = (outputs + k.columns - 1) / k.columns;
  const int64_t size = plan.few ? outputs * depth : panels * k.columns * depth;
  const auto product = plan.few ? k.dot_rows : k.multiply;
  for (int64_t g = 0; g < s.groups; ++g)
    product(tile.count, outputs, depth, w.columns + g * depth, width, weights + g * size,
            rows + (s.group + g) * outputs, p.out_channels);
}

template <class T>
void forward(const Problem& p, const Tensors<T>& t) {
  const Kernels<T>& k = kernels<T>();
  const Plan<T> plan(p, k, Pass::kForward);
  const Constants<T> constants(p, k, t);
  const Buffer<T> packed = pack_weights(p, k, plan, Pass::kForward, t.weight);
  const int64_t lanes = constants.table.lanes, threads = std::min(p.threads, plan.tiles);
  std::vector<Workspace<T>> spaces;
  for (int64_t i = 0; i < threads; ++i) spaces.emplace_back(p, k, plan, lanes, t.mask != nullptr, Pass::kForward);
  const bool in_rows = p.out_channel == 1;
#pragma omp parallel num_threads(int(threads))
  {
#pragma omp for schedule(dynamic, 1)
    for (int64_t index = 0; index < plan.tiles; ++index) {
      Workspace<T>& w = spaces[this_thread()];
      const Tile tile = plan.at(p, index);
      const T* image = t.input + tile.image * p.height * p.width * p.channels;
      T* rows = in_rows ? t.output + (tile.image * p.pixels() + tile.begin) * p.out_channels : w.pixels;
      begin_with_bias(p, tile.count, t.bias, rows);
      int64_t field = -1;
      for (const Piece& s : plan.pieces) {
        if (s.field != field)
          k.find_taps(p, constants.table, t.field, t.mask, s.field, tile, w.lines, w.taps);
        field = s.field;
        add_slice(p, k, plan, s, tile, image, packed.get(), lanes, w, rows);
      }
      if (!in_rows)
        transpose(tile.count, p.out_channels, rows, p.out_channels,
                  t.output + tile.image * p.out_channels * p.pixels() + tile.begin, p.out_channel);
    }
  }
}

template void forward(const Problem&, const Tensors<float>&);
template void forward(const Problem&, const Tensors<double>&);

}  // namespace metric_zoo

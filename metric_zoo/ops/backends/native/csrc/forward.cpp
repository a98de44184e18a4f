// For every block of pixels: find where its samples read, gather a slice of channels, multiply, next slice.
#include "passes.h"

#include <algorithm>

#include "threads.h"
#include "transpose.h"
#include "weights.h"
#include "workspace.h"

namespace metric_zoo {

template <class T>
static void begin_with_bias(const Problem& p, int64_t count, const T* bias, T* rows) {
  for (int64_t n = 0; n < count; ++n)
    if (bias)
      std::copy(bias, bias + p.out_channels, rows + n * p.out_channels);
    else
      std::fill(rows + n * p.out_channels, rows + (n + 1) * p.out_channels, T(0));
}

template <class T>
static void add_slice(const Problem& p, const Kernels<T>& k, const Plan<T>& plan, const Piece& s, Block block,
                      const T* input, const T* packed, int64_t lanes, Workspace<T>& w, T* rows) {
  const T* weights = packed + s.packed;
  const int64_t image_size = p.height * p.width * p.channels, width = plan.row(p, s);
  for_tiles(p, block, [&](Tile tile, int64_t first) {
    const T* image = input + tile.image * image_size;
    if (p.depthwise())
      k.depthwise(p, s, image, w.taps_from(first * lanes), lanes, tile.count, w.lines, weights,
                  rows + first * p.out_channels);
    else
      k.gather(p, s, image, w.taps_from(first * lanes), lanes, tile.count, w.lines, w.columns + first * width);
  });
  if (p.depthwise()) return;
  const int64_t outputs = p.group_outputs(), depth = p.cells() * s.per_group;
  const int64_t panels = (outputs + k.columns - 1) / k.columns;
  const int64_t size = plan.few ? outputs * depth : panels * k.columns * depth;
  const auto product = plan.few ? k.dot_rows : k.multiply;
  for (int64_t g = 0; g < s.groups; ++g)
    product(block.count, outputs, depth, w.columns + g * depth, width, weights + g * size,
            rows + (s.group + g) * outputs, p.out_channels);
}

template <class T>
static void add_block(const Problem& p, const Kernels<T>& k, const Plan<T>& plan, const Table<T>& table, Block block,
                      const Tensors<T>& t, const T* packed, Workspace<T>& w, T* rows) {
  int64_t field = -1;
  for (const Piece& s : plan.pieces) {
    if (s.field != field)
      for_tiles(p, block, [&](Tile tile, int64_t first) {
        k.find_taps(p, table, t.field, t.mask, s.field, tile, w.lines, w.taps_from(first * table.lanes));
      });
    field = s.field;
    add_slice(p, k, plan, s, block, t.input, packed, table.lanes, w, rows);
  }
}

template <class T>
static void blend_block(const Problem& p, const Kernels<T>& k, const Table<T>& table, Block block, const Tensors<T>& t,
                        Workspace<T>& w, T* rows) {
  for_tiles(p, block, [&](Tile tile, int64_t first) {
    const T* image = t.input + tile.image * p.height * p.width;
    k.blend_pixels(p, table, t.field, tile, image, w.lines, w.taps, rows + first);
  });
}

template <class T>
static void store_by_channel(const Problem& p, Block block, const T* rows, T* output) {
  for_tiles(p, block, [&](Tile tile, int64_t first) {
    transpose(tile.count, p.out_channels, rows + first * p.out_channels, p.out_channels,
              output + tile.image * p.out_channels * p.pixels() + tile.begin, p.out_channel);
  });
}

template <class T>
void forward(const Problem& p, const Tensors<T>& given) {
  const Tensors<T> t = readable(p, given);
  const Kernels<T>& k = kernels<T>();
  const Plan<T> plan(p, k, Pass::kForward);
  const Constants<T> constants(p, k, t);
  const Buffer<T> packed = pack_weights(p, k, plan, Pass::kForward, t.weight);
  const int64_t lanes = constants.table.lanes, threads = std::min(p.threads, plan.blocks);
  std::vector<Workspace<T>> spaces;
  for (int64_t i = 0; i < threads; ++i) spaces.emplace_back(p, k, plan, lanes, masked(p, t), Pass::kForward);
  const bool by_pixel = p.out_channel == 1;
#pragma omp parallel num_threads(int(threads))
  {
#pragma omp for schedule(dynamic, 1)
    for (int64_t index = 0; index < plan.blocks; ++index) {
      Workspace<T>& w = spaces[this_thread()];
      const Block block = plan.at(p, index);
      T* rows = by_pixel ? t.output + block.begin * p.out_channels : w.pixels;
      begin_with_bias(p, block.count, t.bias, rows);
      if (p.rule == kBlend && p.channels == 1)
        blend_block(p, k, constants.table, block, t, w, rows);
      else
        add_block(p, k, plan, constants.table, block, t, packed.get(), w, rows);
      if (!by_pixel) store_by_channel(p, block, rows, t.output);
    }
  }
}

template void forward(const Problem&, const Tensors<float>&);
template void forward(const Problem&, const Tensors<double>&);

}  // namespace metric_zoo

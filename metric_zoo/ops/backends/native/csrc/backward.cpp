// Every thread owns a contiguous run of blocks, so that no gradient needs atomics and a sum's order depends on the
// number of threads alone. What threads share (the weight, one image between two threads, a shared field) each sums for
// itself; the sums are added in the threads' order.
#include "passes.h"

#include <algorithm>
#include <atomic>
#include <memory>

#include "transpose.h"
#include "weights.h"
#include "workspace.h"

namespace metric_zoo {

namespace {

// The rows of one image's gradient that one thread writes.
template <class T>
class ImageRows {
 public:
  ImageRows(const Problem& p, bool wanted, std::atomic<bool>& failed)
      : size_(p.width * p.channels), table_(wanted ? p.height : 0), own_(wanted ? p.height : 0), failed_(failed) {
    if (wanted && p.channels == 1) whole_ = Buffer<T>(p.height * size_, true);
    rows_.image = nullptr;
    rows_.row = wanted ? table_.data() : nullptr;
    rows_.make = make;
    rows_.context = this;
  }
  // An image that this thread began: its rows are where they end up.
  void write_to(T* image) {
    rows_.image = image;
    for (size_t y = 0; y < table_.size(); ++y) table_[y] = image + int64_t(y) * size_;
  }
  // An image begun by the thread before: rows of its own, made when first met.
  void write_aside() {
    rows_.image = whole_.get();
    for (size_t y = 0; y < table_.size(); ++y) table_[y] = own_[y].get();
  }
  const T* aside(int64_t y) const {
    if (own_.empty()) return nullptr;
    return whole_.get() ? whole_.get() + y * size_ : own_[y].get();
  }
  Rows<T>& rows() { return rows_; }

 private:
  static T* make(Rows<T>& rows, int64_t y) {
    ImageRows& self = *static_cast<ImageRows*>(rows.context);
    try {
      self.own_[y] = Buffer<T>(self.size_, true);
    } catch (const std::bad_alloc&) {
      self.failed_ = true;
      if (!self.spare_) self.spare_.reset(new T[self.size_]());
      return self.spare_.get();
    }
    return self.table_[y] = self.own_[y].get();
  }
  int64_t size_;
  std::vector<T*> table_;
  std::vector<Buffer<T>> own_;
  Buffer<T> whole_;  // an image of one channel, which is small
  std::unique_ptr<T[]> spare_;
  std::atomic<bool>& failed_;
  Rows<T> rows_;
};

template <class T>
struct Run {
  int64_t begin, end;  // blocks
  int64_t shared;      // the image that the thread before began, or -1
  Workspace<T> space;
  ImageRows<T> image;
  Run(int64_t begin_, int64_t end_, int64_t pixel, Workspace<T>&& space_, const Problem& p, bool grad_input,
      std::atomic<bool>& failed)
      : begin(begin_),
        end(end_),
        shared(pixel % p.pixels() ? pixel / p.pixels() : -1),
        space(std::move(space_)),
        image(p, grad_input, failed) {}
};

template <class T>
using Runs = std::vector<std::unique_ptr<Run<T>>>;  // at addresses that stay

// What stays the same throughout a call.
template <class T>
struct Call {
  const Problem& p;
  const Tensors<T>& t;
  const Kernels<T>& k;
  const Plan<T>& plan;
  const Table<T>& table;
  const T* packed;
};

template <class T>
Rows<T>& rows_for(const Call<T>& call, int64_t image, Run<T>& run) {
  const Problem& p = call.p;
  if (call.t.grad_input && image == run.shared)
    run.image.write_aside();
  else if (call.t.grad_input)
    run.image.write_to(call.t.grad_input + image * p.height * p.width * p.channels);
  return run.image.rows();
}

// The samples' gradients: the output's, times the weights.
template <class T>
void multiply_back(const Call<T>& call, const Piece& s, Block block, const T* grad, T* columns) {
  const Problem& p = call.p;
  const bool few = call.plan.few;
  const int64_t outputs = p.group_outputs(), depth = p.cells() * s.per_group, width = call.plan.row(p, s);
  const int64_t size = outputs * (few ? depth : (depth + call.k.columns - 1) / call.k.columns * call.k.columns);
  if (!few) std::fill(columns, columns + block.count * width, T(0));
  const auto product = few ? call.k.spread_rows : call.k.multiply;
  for (int64_t g = 0; g < s.groups; ++g) {
    const T *upstream = grad + (s.group + g) * outputs, *weights = call.packed + s.packed + g * size;
    if (few)
      product(block.count, outputs, depth, upstream, p.out_channels, weights, columns + g * depth, width);
    else
      product(block.count, depth, outputs, upstream, p.out_channels, weights, columns + g * depth, width);
  }
}

// The weights' gradients: the output's, times the samples.
template <class T>
void sum_weights(const Call<T>& call, const Piece& s, Block block, const T* grad, const T* columns, T* panel,
                 T* grad_weight) {
  const Problem& p = call.p;
  const int64_t outputs = p.group_outputs(), depth = p.cells() * s.per_group, width = call.plan.row(p, s);
  for (int64_t g = 0; g < s.groups; ++g) {
    const T *upstream = grad + (s.group + g) * outputs, *samples = columns + g * depth;
    T* out = grad_weight + s.plain + g * outputs * depth;
    if (call.plan.few)
      call.k.sum_rows(block.count, outputs, depth, upstream, p.out_channels, samples, width, out);
    else
      call.k.multiply_transposed(outputs, depth, block.count, upstream, p.out_channels, samples, width, out, depth,
                                 panel);
  }
}

template <class T>
void through_slice(const Call<T>& call, const Piece& s, Block block, const T* grad, Run<T>& run, T* grad_weight) {
  const Problem& p = call.p;
  Workspace<T>& w = run.space;
  const int64_t lanes = call.table.lanes, width = call.plan.row(p, s), image_size = p.height * p.width * p.channels;
  if (!p.depthwise()) multiply_back(call, s, block, grad, w.columns);
  for_tiles(p, block, [&](Tile tile, int64_t first) {
    const T* image = call.t.input + tile.image * image_size;
    Rows<T>& rows = rows_for(call, tile.image, run);
    const Taps<T> taps = w.taps_from(first * lanes);
    const SampleGradients<T> gradients = w.gradients_from(first * lanes);
    if (p.depthwise())
      call.k.depthwise_backward(p, s, image, taps, lanes, tile.count, w.lines, call.packed + s.packed,
                                grad + first * p.out_channels, rows, w.columns, grad_weight + s.plain, gradients);
    else
      call.k.scatter(p, s, image, taps, lanes, tile.count, w.lines, rows, w.columns + first * width, gradients);
  });
  if (!p.depthwise() && grad_weight) sum_weights(call, s, block, grad, w.columns, w.panel, grad_weight);
}

// The output's gradient in rows of out_channels: where it lies, or copied to `buffer`.
template <class T>
const T* by_pixel(const Problem& p, Block block, const T* grad, T* buffer) {
  if (p.out_channel == 1) return grad + block.begin * p.out_channels;
  for_tiles(p, block, [&](Tile tile, int64_t first) {
    transpose(p.out_channels, tile.count, grad + tile.image * p.out_channels * p.pixels() + tile.begin, p.out_channel,
              buffer + first * p.out_channels, p.out_channels);
  });
  return buffer;
}

template <class T>
void clear(const SampleGradients<T>& g, int64_t size) {
  std::fill(g.y, g.y + size, T(0));
  std::fill(g.x, g.x + size, T(0));
  if (g.mask) std::fill(g.mask, g.mask + size, T(0));
}

template <class T>
void store_mask_gradient(const Problem& p, Tile tile, int64_t group, int64_t lanes, const T* gradient, T* out) {
  T* origin = out + ((tile.image * p.fields + group) * p.cells()) * p.pixels() + tile.begin;
  for (int64_t i = 0; i < p.cells(); ++i)
    for (int64_t n = 0; n < tile.count; ++n) origin[i * p.pixels() + n] = gradient[n * lanes + i];
}

template <class T>
void through_block(const Call<T>& call, Block block, Run<T>& run, T* grad_weight, T* grad_field, double* grad_tables) {
  const Problem& p = call.p;
  const Tensors<T>& t = call.t;
  const int64_t lanes = call.table.lanes;
  const auto& pieces = call.plan.pieces;
  Workspace<T>& w = run.space;
  const T* grad = by_pixel(p, block, t.grad, w.pixels);
  for (size_t i = 0; i < pieces.size(); ++i) {
    const Piece& s = pieces[i];
    if (i == 0 || s.field != pieces[i - 1].field) {
      clear(w.gradients, block.count * lanes);
      for_tiles(p, block, [&](Tile tile, int64_t first) {
        call.k.find_taps_backward(p, call.table, t.field, t.mask, s.field, tile, w.lines, w.taps_from(first * lanes));
      });
    }
    through_slice(call, s, block, grad, run, grad_weight);
    if (i + 1 < pieces.size() && pieces[i + 1].field == s.field) continue;
    for_tiles(p, block, [&](Tile tile, int64_t first) {
      const SampleGradients<T> gradients = w.gradients_from(first * lanes);
      if (p.rule == kBlend)
        call.k.blend_gradient(p, call.table, t.field, tile, gradients, grad_field, grad_tables);
      else if (grad_field)
        call.k.field_gradient(p, call.table, t.field, s.field, tile, gradients, grad_field);
      if (t.grad_mask) store_mask_gradient(p, tile, s.field, lanes, gradients.mask, t.grad_mask);
    });
  }
}

int64_t field_size(const Problem& p) {
  const auto extent = [](int64_t stride, int64_t size) { return stride ? size : 1; };
  return extent(p.field_batch, p.batch) * p.fields * extent(p.field_cell, p.cells()) * p.numbers *
         extent(p.field_row, p.out_height) * extent(p.field_column, p.out_width);
}

template <class T>
void add_images_aside(const Problem& p, const Runs<T>& runs, T* grad_input) {
  const int64_t size = p.width * p.channels;
  for (const auto& run : runs) {
    if (run->shared < 0) continue;
    T* image = grad_input + run->shared * p.height * size;
#pragma omp parallel for num_threads(int(p.threads)) schedule(static)
    for (int64_t y = 0; y < p.height; ++y)
      if (const T* row = run->image.aside(y))
        for (int64_t i = 0; i < size; ++i) image[y * size + i] += row[i];
  }
}

// The tables' gradients of all threads, added in order, from (tables, 3, lanes) to the layout of the tables.
template <class T>
void unpack_tables(const Problem& p, int64_t lanes, const std::vector<Buffer<double>>& parts, T* out) {
  const int64_t cells = p.cells();
  for (int64_t k = 0; k < 3 * p.tables(); ++k)
    for (int64_t i = 0; i < cells; ++i) {
      double sum = 0;
      for (const Buffer<double>& part : parts) sum += part.get()[k * lanes + i];
      out[(k / 3 * cells + i) * 3 + k % 3] = T(sum);
    }
}

}  // namespace

template <class T>
void backward(const Problem& p, const Tensors<T>& given) {
  const Tensors<T> t = readable(p, given);
  const Kernels<T>& k = kernels<T>();
  const Plan<T> plan(p, k, Pass::kBackward);
  const Constants<T> constants(p, k, t);
  const Buffer<T> packed = pack_weights(p, k, plan, Pass::kBackward, t.weight);
  const Call<T> call{p, t, k, plan, constants.table, packed.get()};
  const int64_t threads = std::min(p.threads, plan.blocks);
  std::atomic<bool> failed{false};
  Runs<T> runs;
  std::vector<Buffer<T>> weights, fields;
  std::vector<Buffer<double>> tables;
  // A depthwise sum always has somewhere to go.
  const bool sums = t.grad_weight || p.depthwise(), own_field = t.grad_field && p.shares_field();
  for (int64_t i = 0; i < threads; ++i) {
    const int64_t begin = plan.blocks * i / threads;
    Workspace<T> space(p, k, plan, constants.table.lanes, masked(p, t), Pass::kBackward);
    runs.push_back(std::make_unique<Run<T>>(begin, plan.blocks * (i + 1) / threads, plan.at(p, begin).begin,
                                            std::move(space), p, t.grad_input != nullptr, failed));
    if (sums) weights.emplace_back(plan.plain_size, true);
    if (own_field) fields.emplace_back(field_size(p), true);
    if (t.grad_table) tables.emplace_back(3 * p.tables() * constants.table.lanes, true);
  }
#pragma omp parallel for num_threads(int(threads)) schedule(static, 1)
  for (int64_t i = 0; i < threads; ++i) {
    T *own_weights = sums ? weights[i].get() : nullptr, *own = own_field ? fields[i].get() : t.grad_field;
    for (int64_t index = runs[i]->begin; index < runs[i]->end; ++index)
      through_block(call, plan.at(p, index), *runs[i], own_weights, own, t.grad_table ? tables[i].get() : nullptr);
  }
  if (failed) throw std::bad_alloc();
  if (t.grad_input) add_images_aside(p, runs, t.grad_input);
  if (t.grad_weight) unpack_weights(p, plan, weights, t.grad_weight);
  if (t.grad_table) unpack_tables(p, constants.table.lanes, tables, t.grad_table);
  for (const Buffer<T>& own : fields)
    for (int64_t i = 0; i < own.size(); ++i) t.grad_field[i] += own.get()[i];
}

template void backward(const Problem&, const Tensors<float>&);
template void backward(const Problem&, const Tensors<double>&);

}  // namespace metric_zoo

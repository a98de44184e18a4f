// Every thread owns a contiguous run of tiles, so that no gradient needs atomics and a sum's order depends on the number
// of threads alone. What threads share (the weight, one image between two threads, a shared field) each sums for itself;
// the sums are added in the threads' order.
#include "passes.h"

#include <algorithm>
#include <atomic>
#include <memory>

#include "plan.h"

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
  // An image of this thread's alone: its rows are where they end up.
  void write_to(T* image) {
    rows_.image = image;
    for (size_t y = 0; y < table_.size(); ++y) table_[y] = image + int64_t(y) * size_;
  }
  // An image begun by the thread before: rows of its own, made when first met.
  void write_aside() {
    std::fill(table_.begin(), table_.end(), nullptr);
    rows_.image = whole_.get();
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
  int64_t begin, end;  // tiles
  Workspace<T> space;
  ImageRows<T> image;
  Run(int64_t begin_, int64_t end_, Workspace<T>&& space_, const Problem& p, bool grad_input, std::atomic<bool>& failed)
      : begin(begin_), end(end_), space(std::move(space_)), image(p, grad_input, failed) {}
};

template <class T>
using Runs = std::vector<std::unique_ptr<Run<T>>>;  // at addresses that stay

template <class T>
void through_slice(const Problem& p, const Kernels<T>& k, const Plan<T>& plan, const Piece& s, Tile tile,
                   const T* image, const T* packed, int64_t lanes, const T* grad, Run<T>& run, T* grad_weight) {
  Workspace<T>& w = run.space;
  const T* weights = packed + s.packed;
  if (p.depthwise()) {
    k.depthwise_backward(p, s, image, w.taps, lanes, tile.count, w.lines, weights, grad, run.image.rows(), w.columns,
                         grad_weight + s.plain, w.gradients);
    return;
  }
  const int64_t outputs = p.group_outputs(), depth = p.cells() * s.per_group, width = plan.row(p, s);
  const int64_t size = plan.few ? outputs * depth : (depth + k.columns - 1) / k.columns * k.columns * outputs;
  for (int64_t g = 0; g < s.groups; ++g) {
    const T* upstream = grad + (s.group + g) * outputs;
    T* columns = w.columns + g * depth;
    if (plan.few) {
      k.spread_rows(tile.count, outputs, depth, upstream, p.out_channels, weights + g * size, columns, width);
      continue;
    }
    for (int64_t n = 0; n < tile.count; ++n) std::fill(columns + n * width, columns + n * width + depth, T(0));
    k.multiply(tile.count, depth, outputs, upstream, p.out_channels, weights + g * size, columns, width);
  }
  k.scatter(p, s, image, w.taps, lanes, tile.count, w.lines, run.image.rows(), w.columns, w.gradients);
  for (int64_t g = 0; g < s.groups && grad_weight; ++g) {
    const T *upstream = grad + (s.group + g) * outputs, *columns = w.columns + g * depth;
    T* out = grad_weight + s.plain + g * outputs * depth;
    if (plan.few)
      k.sum_rows(tile.count, outputs, depth, upstream, p.out_channels, columns, width, out);
    else
      k.multiply_transposed(outputs, depth, tile.count, upstream, p.out_channels, columns, width, out, depth, w.panel);
  }
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
void through_tile(const Problem& p, const Kernels<T>& k, const Plan<T>& plan, const Tensors<T>& t,
                  const Table<T>& table, const T* packed, Tile tile, Run<T>& run, T* grad_weight, T* grad_field) {
  Workspace<T>& w = run.space;
  const T* image = t.input + tile.image * p.height * p.width * p.channels;
  const T* grad = rows_of_output(p, tile, t.grad, w.pixels);
  for (size_t i = 0; i < plan.pieces.size(); ++i) {
    const Piece& s = plan.pieces[i];
    if (i == 0 || s.field != plan.pieces[i - 1].field) {
      k.find_taps_backward(p, table, t.field, t.mask, s.field, tile, w.lines, w.taps);
      clear(w.gradients, tile.count * table.lanes);
    }
    through_slice(p, k, plan, s, tile, image, packed, table.lanes, grad, run, grad_weight);
    if (i + 1 < plan.pieces.size() && plan.pieces[i + 1].field == s.field) continue;
    if (grad_field) k.field_gradient(p, table, t.field, s.field, tile, w.gradients, grad_field);
    if (t.grad_mask) store_mask_gradient(p, tile, s.field, table.lanes, w.gradients.mask, t.grad_mask);
  }
}

int64_t field_size(const Problem& p) {
  const int64_t components = p.rule == kBall ? 5 : 2;
  const auto extent = [](int64_t stride, int64_t size) { return stride ? size : 1; };
  return extent(p.field_batch, p.batch) * p.fields * extent(p.field_cell, p.cells()) * components *
         extent(p.field_row, p.out_height) * extent(p.field_column, p.out_width);
}

template <class T>
void add_images_aside(const Problem& p, const Plan<T>& plan, const Runs<T>& runs, T* grad_input) {
  const int64_t size = p.width * p.channels;
  for (const auto& run : runs) {
    T* image = grad_input + plan.at(p, run->begin).image * p.height * size;
#pragma omp parallel for num_threads(int(p.threads)) schedule(static)
    for (int64_t y = 0; y < p.height; ++y)
      if (const T* row = run->image.aside(y))
        for (int64_t i = 0; i < size; ++i) image[y * size + i] += row[i];
  }
}

}  // namespace

template <class T>
void backward(const Problem& p, const Tensors<T>& t) {
  const Kernels<T>& k = kernels<T>();
  const Plan<T> plan(p, k, Pass::kBackward);
  const Constants<T> constants(p, k, t);
  const Buffer<T> packed = pack_weights(p, k, plan, Pass::kBackward, t.weight);
  const int64_t threads = std::min(p.threads, plan.tiles);
  std::atomic<bool> failed{false};
  Runs<T> runs;
  std::vector<Buffer<T>> weights, fields;
  // A depthwise sum always has somewhere to go.
  const bool sum_weights = t.grad_weight || p.depthwise(), own_field = t.grad_field && p.shares_field();
  for (int64_t i = 0; i < threads; ++i) {
    Workspace<T> space(p, k, plan, constants.table.lanes, t.mask != nullptr, Pass::kBackward);
    runs.push_back(std::make_unique<Run<T>>(plan.tiles * i / threads, plan.tiles * (i + 1) / threads, std::move(space),
                                            p, t.grad_input != nullptr, failed));
    if (sum_weights) weights.emplace_back(plan.plain_size, true);
    if (own_field) fields.emplace_back(field_size(p), true);
  }
#pragma omp parallel for num_threads(int(threads)) schedule(static, 1)
  for (int64_t i = 0; i < threads; ++i) {
    Run<T>& run = *runs[i];
    int64_t image = -1;
    for (int64_t index = run.begin; index < run.end; ++index) {
      const Tile tile = plan.at(p, index);
      if (t.grad_input && tile.image != image) {
        if (index == run.begin && tile.begin > 0)
          run.image.write_aside();
        else
          run.image.write_to(t.grad_input + tile.image * p.height * p.width * p.channels);
      }
      image = tile.image;
      through_tile(p, k, plan, t, constants.table, packed.get(), tile, run, sum_weights ? weights[i].get() : nullptr,
                   own_field ? fields[i].get() : t.grad_field);
    }
  }
  if (failed) throw std::bad_alloc();
  if (t.grad_input) add_images_aside(p, plan, runs, t.grad_input);
  if (t.grad_weight) unpack_weights(p, plan, weights, t.grad_weight);
  for (const Buffer<T>& own : fields)
    for (int64_t i = 0; i < own.size(); ++i) t.grad_field[i] += own.get()[i];
}

template void backward(const Problem&, const Tensors<float>&);
template void backward(const Problem&, const Tensors<double>&);

}  // namespace metric_zoo

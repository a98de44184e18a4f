// How a call is cut: channels into slices, pixels into blocks, weights into the order in which they are read.
#pragma once
#include <cstdlib>
#include <new>
#include <utility>
#include <vector>
#if defined(_OPENMP)
#include <omp.h>
#endif

#include "kernels.h"

namespace metric_zoo {

inline int this_thread() {
#if defined(_OPENMP)
  return omp_get_thread_num();
#else
  return 0;
#endif
}

// Memory for vectors: aligned, not initialised, freed with its owner.
template <class T>
class Buffer {
 public:
  Buffer() = default;
  explicit Buffer(int64_t size, bool zeros = false) : size_(size) {
    const size_t bytes = (size_t(size > 0 ? size : 1) * sizeof(T) + 63) / 64 * 64;
    // calloc hands out pages that are zero already, so that rows nobody touches cost nothing.
    data_ = static_cast<T*>(zeros ? std::calloc(bytes, 1) : std::aligned_alloc(64, bytes));
    if (!data_) throw std::bad_alloc();
  }
  Buffer(Buffer&& other) noexcept : data_(other.data_), size_(other.size_) { other.data_ = nullptr; }
  Buffer& operator=(Buffer&& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(size_, other.size_);
    return *this;
  }
  ~Buffer() { std::free(data_); }
  T* get() const { return data_; }
  int64_t size() const { return size_; }

 private:
  T* data_ = nullptr;
  int64_t size_ = 0;
};

struct Piece : Slice {
  int64_t packed;  // where its weights begin in a packed copy
  int64_t plain;   // and where its weight gradients do, (groups, outputs, cells, per_group)
};

// Pixels of the output, counted through all images: [begin, begin + count). As one product multiplies them, small images
// share a block.
struct Block {
  int64_t begin, count;
};

// Calls visit(tile, first) for what every image has of a block: `first` is the tile's first pixel within the block.
template <class Visit>
void for_tiles(const Problem& p, Block block, Visit visit) {
  for (int64_t first = 0; first < block.count;) {
    const int64_t pixel = block.begin + first, image = pixel / p.pixels(), begin = pixel - image * p.pixels();
    const int64_t left = p.pixels() - begin, count = left < block.count - first ? left : block.count - first;
    visit(Tile{image, begin, count}, first);
    first += count;
  }
}

enum class Pass { kForward, kBackward };

template <class T>
struct Plan {
  std::vector<Piece> pieces;
  int64_t block, blocks;  // pixels of one, and how many there are
  int64_t packed_size, plain_size;
  bool few;  // so few outputs in a group that a register block would stand empty

  Plan(const Problem&, const Kernels<T>&, Pass);
  Block at(const Problem&, int64_t index) const;
  // Samples of one pixel in a slice.
  int64_t row(const Problem& p, const Slice& s) const { return p.cells() * s.channels(); }
};

template <class T>
Buffer<T> pack_weights(const Problem&, const Kernels<T>&, const Plan<T>&, Pass, const T* weight);

// The weight gradients of all threads, added in order, in the layout of the weight.
template <class T>
void unpack_weights(const Problem&, const Plan<T>&, const std::vector<Buffer<T>>& parts, T* grad_weight);

template <class T>
struct Constants {
  Buffer<T> memory;
  Table<T> table;
  Constants(const Problem&, const Kernels<T>&, const Tensors<T>&);
};

// The arguments, with a zero for the first pixel of images that have none: where vectors are read by their indices, lanes
// whose corner lies outside read the first pixel and drop it.
template <class T>
Tensors<T> readable(const Problem& p, Tensors<T> t) {
  static const T nothing = T(0);
  if (p.height * p.width * p.channels == 0) t.input = &nothing;
  return t;
}

template <class T>
bool masked(const Problem& p, const Tensors<T>& t) { return t.mask || p.rule == kBlend; }

// What one thread needs for a block.
template <class T>
struct Workspace {
  Buffer<T> numbers;
  Buffer<int32_t> indices;
  Lines<T> lines;
  Taps<T> taps;
  SampleGradients<T> gradients;
  T *columns, *pixels, *panel;  // samples of the block; its outputs (or their gradients) in rows; one panel
  Workspace(const Problem&, const Kernels<T>&, const Plan<T>&, int64_t lanes, bool masked, Pass);
  Taps<T> taps_from(int64_t site) const;
  SampleGradients<T> gradients_from(int64_t site) const;
};

}  // namespace metric_zoo

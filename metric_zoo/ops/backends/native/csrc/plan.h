// How a call is cut: channels into slices, pixels into blocks.
#pragma once
#include <vector>

#include "kernels.h"

namespace metric_zoo {

struct Piece : Slice {
  int64_t packed;  // where its weights begin in a packed copy
  int64_t plain;   // and where its weight gradients do, (groups, outputs, cells, per_group)
};

// Pixels of the output, counted through all images: [begin, begin + count). As one product multiplies them, small
// images share a block.
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

constexpr int64_t round_up(int64_t value, int64_t to) { return (value + to - 1) / to * to; }

// Cells of a kernel, up to whole vectors.
template <class T>
int64_t lanes_of(const Problem& p, const Kernels<T>& k) {
  return round_up(p.cells(), k.columns / 2);
}

}  // namespace metric_zoo

// Between pixel by pixel and channel by channel.
#pragma once
#include <algorithm>
#include <cstdint>
#include <cstring>

namespace metric_zoo {

// to[c, r] = from[r, c], in squares of whole cache lines. A full square passes through a buffer: the rows of an image
// are often a power of two apart, where reading down a column would evict what it is about to read.
template <class T>
inline void transpose(int64_t rows, int64_t columns, const T* from, int64_t from_stride, T* to, int64_t to_stride) {
  constexpr int64_t side = 64 / sizeof(T);
  T square[side * side];
  for (int64_t r0 = 0; r0 < rows; r0 += side)
    for (int64_t c0 = 0; c0 < columns; c0 += side) {
      const int64_t height = std::min(side, rows - r0), width = std::min(side, columns - c0);
      const T* source = from + r0 * from_stride + c0;
      T* target = to + c0 * to_stride + r0;
      if (height == side && width == side) {
        for (int64_t r = 0; r < side; ++r) std::memcpy(square + r * side, source + r * from_stride, 64);
        for (int64_t c = 0; c < side; ++c)
          for (int64_t r = 0; r < side; ++r) target[c * to_stride + r] = square[r * side + c];
        continue;
      }
      for (int64_t c = 0; c < width; ++c)
        for (int64_t r = 0; r < height; ++r) target[c * to_stride + r] = source[r * from_stride + c];
    }
}

template <class T>
void transpose_batch(const T* from, T* to, int64_t batch, int64_t rows, int64_t columns, int threads) {
  constexpr int64_t strip = 64;  // rows a thread takes at a time
  const int64_t strips = (rows + strip - 1) / strip;
#pragma omp parallel for num_threads(threads) schedule(static)
  for (int64_t index = 0; index < batch * strips; ++index) {
    const int64_t image = index / strips * rows * columns, first = index % strips * strip;
    transpose(std::min(strip, rows - first), columns, from + image + first * columns, columns, to + image + first,
              rows);
  }
}

}  // namespace metric_zoo

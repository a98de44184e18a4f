// Between pixel by pixel and channel by channel.
#pragma once
#include <algorithm>
#include <cstdint>

namespace metric_zoo {

// to[c, r] = from[r, c], in squares whose cache lines are whole on both sides.
template <class T>
inline void transpose(int64_t rows, int64_t columns, const T* from, int64_t from_stride, T* to, int64_t to_stride) {
  constexpr int64_t side = 64 / sizeof(T);
  for (int64_t r0 = 0; r0 < rows; r0 += side)
    for (int64_t c0 = 0; c0 < columns; c0 += side) {
      const int64_t r1 = std::min(r0 + side, rows), c1 = std::min(c0 + side, columns);
      for (int64_t c = c0; c < c1; ++c)
        for (int64_t r = r0; r < r1; ++r) to[c * to_stride + r] = from[r * from_stride + c];
    }
}

template <class T>
void transpose_batch(const T* from, T* to, int64_t batch, int64_t rows, int64_t columns, int threads) {
  constexpr int64_t strip = 64;  // rows a thread takes at a time
  const int64_t strips = (rows + strip - 1) / strip;
#pragma omp parallel for num_threads(threads) schedule(static)
  for (int64_t index = 0; index < batch * strips; ++index) {
    const int64_t image = index / strips * rows * columns, first = index % strips * strip;
    transpose(std::min(strip, rows - first), columns, from + image + first * columns, columns, to + image + first, rows);
  }
}

}  // namespace metric_zoo

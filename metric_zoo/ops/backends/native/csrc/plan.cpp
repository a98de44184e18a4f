#include "plan.h"

#include <algorithm>

namespace metric_zoo {

constexpr int64_t kRow = 1152;  // numbers in one pixel's samples of one slice
constexpr int64_t kLeastChannels = 16;
constexpr int64_t kBlockBytes = 512 << 10;  // of samples: what stays in a second-level cache
constexpr int64_t kMostPixels = 256;
constexpr int64_t kBlocksPerThread = 4;
constexpr int64_t kFewOutputs = 4;

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
      packed =
          pass == Pass::kForward ? row_size * round_up(outputs, k.columns) : outputs * round_up(row_size, k.columns);
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

template struct Plan<float>;
template struct Plan<double>;

}  // namespace metric_zoo

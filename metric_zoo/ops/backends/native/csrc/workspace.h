// What the kernels need besides the arguments: constants of a call, and buffers of every thread.
#pragma once
#include "buffer.h"
#include "plan.h"

namespace metric_zoo {

template <class T>
struct Constants {
  Buffer<T> memory;
  Table<T> table;
  Constants(const Problem&, const Kernels<T>&, const Tensors<T>&);
};

// The arguments, with a zero for the first pixel of images that have none: where vectors are read by their indices,
// lanes whose corner lies outside read the first pixel and drop it.
template <class T>
Tensors<T> readable(const Problem& p, Tensors<T> t) {
  static const T nothing = T(0);
  if (p.height * p.width * p.channels == 0) t.input = &nothing;
  return t;
}

template <class T>
bool masked(const Problem& p, const Tensors<T>& t) {
  return t.mask || p.rule == kBlend;
}

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

// Weights in the order in which they are read, and their gradients back from it.
#pragma once
#include <vector>

#include "buffer.h"
#include "plan.h"

namespace metric_zoo {

template <class T>
Buffer<T> pack_weights(const Problem&, const Kernels<T>&, const Plan<T>&, Pass, const T* weight);

// The weight gradients of all threads, added in order, in the layout of the weight.
template <class T>
void unpack_weights(const Problem&, const Plan<T>&, const std::vector<Buffer<T>>& parts, T* grad_weight);

}  // namespace metric_zoo

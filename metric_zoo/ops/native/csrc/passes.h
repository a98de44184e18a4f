// The two passes over a call's tiles.
#pragma once
#include "problem.h"

namespace metric_zoo {

template <class T>
void forward(const Problem&, const Tensors<T>&);
template <class T>
void backward(const Problem&, const Tensors<T>&);

}  // namespace metric_zoo

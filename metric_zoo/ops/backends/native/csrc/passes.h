// The two passes over a call's tiles, and the way around them where all pixels sample alike.
#pragma once
#include "problem.h"

namespace metric_zoo {

template <class T>
void forward(const Problem&, const Tensors<T>&);
template <class T>
void backward(const Problem&, const Tensors<T>&);
template <class T>
void stencil(const Stencil&, const T* input, const T* weights, const T* bias, T* output);

}  // namespace metric_zoo

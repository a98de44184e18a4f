// The C interface, mirrored in library.py.
#include <new>

#include "kernels.h"
#include "layout.h"
#include "passes.h"
#include "transpose.h"

#if defined(_WIN32)
#define EXPORT extern "C" __declspec(dllexport)
#else
#define EXPORT extern "C" __attribute__((visibility("default")))
#endif

namespace {

enum Status : int { kDone = 0, kOutOfMemory = 1 };

template <class Pass, class... Arguments>
int guarded(Pass pass, Arguments... arguments) {
  try {
    pass(arguments...);
  } catch (const std::bad_alloc&) {
    return kOutOfMemory;
  }
  return kDone;
}

}  // namespace

using metric_zoo::Problem;
using metric_zoo::Stencil;
using metric_zoo::Tensors;

EXPORT int metric_zoo_forward_float32(const Problem* p, const Tensors<float>* t) {
  return guarded([](auto p, auto t) { metric_zoo::forward(*p, *t); }, p, t);
}
EXPORT int metric_zoo_forward_float64(const Problem* p, const Tensors<double>* t) {
  return guarded([](auto p, auto t) { metric_zoo::forward(*p, *t); }, p, t);
}
EXPORT int metric_zoo_backward_float32(const Problem* p, const Tensors<float>* t) {
  return guarded([](auto p, auto t) { metric_zoo::backward(*p, *t); }, p, t);
}
EXPORT int metric_zoo_backward_float64(const Problem* p, const Tensors<double>* t) {
  return guarded([](auto p, auto t) { metric_zoo::backward(*p, *t); }, p, t);
}
EXPORT int metric_zoo_stencil_float32(const Stencil* s, const float* input, const float* weights, const float* bias,
                                      float* output) {
  return guarded(metric_zoo::stencil<float>, *s, input, weights, bias, output);
}
EXPORT int metric_zoo_stencil_float64(const Stencil* s, const double* input, const double* weights, const double* bias,
                                      double* output) {
  return guarded(metric_zoo::stencil<double>, *s, input, weights, bias, output);
}
// to (batch, columns, rows) = from (batch, rows, columns).
EXPORT void metric_zoo_transpose_float32(const float* from, float* to, int64_t batch, int64_t rows, int64_t columns,
                                         int threads) {
  metric_zoo::transpose_batch(from, to, batch, rows, columns, threads);
}
EXPORT void metric_zoo_transpose_float64(const double* from, double* to, int64_t batch, int64_t rows, int64_t columns,
                                         int threads) {
  metric_zoo::transpose_batch(from, to, batch, rows, columns, threads);
}
// Use at most this instruction set (-1: leave it); returns the one in use: 0 baseline, 1 AVX2, 2 AVX-512.
EXPORT int metric_zoo_limit_isa(int most) { return metric_zoo::limit_isa(most); }
EXPORT int metric_zoo_interface() { return 5; }
// Lines as structs.py makes them of its own structures: "Problem 256", "Problem.height 8".
EXPORT const char* metric_zoo_layout() { return metric_zoo::layout(); }

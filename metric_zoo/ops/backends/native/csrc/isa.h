// The inner loops for the instruction set that the including file has chosen by ISA, VECTOR_BYTES and ROWS.
// Everything here lives in a namespace of that set's own: one function compiled twice must not be merged by the linker.
#include "blended.h"
#include "depthwise.h"
#include "product.h"
#include "samples.h"
#include "stencil.h"
#include "taps.h"

namespace metric_zoo::ISA {

template <class T>
const Kernels<T> table = {ROWS,
                          kPanel<T>,
                          find_taps<T, false>,
                          find_taps<T, true>,
                          gather<T>,
                          scatter<T>,
                          field_gradient<T>,
                          blend_gradient<T>,
                          multiply<T>,
                          multiply_transposed<T>,
                          dot_rows<T>,
                          spread_rows<T>,
                          sum_rows<T>,
                          depthwise<T>,
                          depthwise_backward<T>,
                          blend_pixels<T>,
                          add_shifted<T>};

template <class T>
const Kernels<T>& get() {
  return table<T>;
}
template const Kernels<float>& get<float>();
template const Kernels<double>& get<double>();

}  // namespace metric_zoo::ISA

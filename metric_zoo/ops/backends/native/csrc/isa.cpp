// Which of the compiled instruction sets runs.
#include <algorithm>

#include "kernels.h"

namespace metric_zoo {

namespace baseline {
template <class T>
const Kernels<T>& get();
}
#if defined(__x86_64__)
namespace avx2 {
template <class T>
const Kernels<T>& get();
}
namespace avx512 {
template <class T>
const Kernels<T>& get();
}
#endif

static int best() {
#if defined(__x86_64__)
  static const int found = [] {
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq") &&
        __builtin_cpu_supports("avx512bw"))
      return int(kAvx512);
    return int(__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") ? kAvx2 : kBaseline);
  }();
  return found;
#else
  return kBaseline;
#endif
}

static int limit = kAvx512;

int limit_isa(int most) {
  if (most >= 0) limit = most;
  return std::min(best(), limit);
}

template <class T>
const Kernels<T>& kernels() {
#if defined(__x86_64__)
  switch (std::min(best(), limit)) {
    case kAvx512: return avx512::get<T>();
    case kAvx2: return avx2::get<T>();
  }
#endif
  return baseline::get<T>();
}
template const Kernels<float>& kernels<float>();
template const Kernels<double>& kernels<double>();

}  // namespace metric_zoo

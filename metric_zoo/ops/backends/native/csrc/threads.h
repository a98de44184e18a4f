// Which thread runs.
#pragma once
#if defined(_OPENMP)
#include <omp.h>
#endif

namespace metric_zoo {

inline int this_thread() {
#if defined(_OPENMP)
  return omp_get_thread_num();
#else
  return 0;
#endif
}

}  // namespace metric_zoo

// Root and floor, which every processor here has as instructions.
#pragma once

namespace metric_zoo::ISA {

template <class T>
inline T root(T v);
template <>
inline float root(float v) {
  return __builtin_sqrtf(v);
}
template <>
inline double root(double v) {
  return __builtin_sqrt(v);
}
template <class T>
inline T floor_of(T v);
template <>
inline float floor_of(float v) {
  return __builtin_floorf(v);
}
template <>
inline double floor_of(double v) {
  return __builtin_floor(v);
}

}  // namespace metric_zoo::ISA

// Vectors of the chosen instruction set, as gcc and clang have them in the language.
#pragma once
#include <cstdint>

namespace metric_zoo::ISA {

// N numbers that may lie anywhere. Named by numbers, because a type's attributes are lost as a template argument.
template <class T, int64_t N>
struct Simd {
  typedef T Vector __attribute__((vector_size(N * sizeof(T)), aligned(alignof(T)), may_alias));
};
template <class T>
struct Simd<T, 1> {
  typedef T Vector;
};

template <class T>
constexpr int64_t kLanes = VECTOR_BYTES / sizeof(T);

template <class T, int64_t N>
using Vector = typename Simd<T, N>::Vector;

template <class T, int64_t N>
inline Vector<T, N> load(const T* from) {
  return *(const Vector<T, N>*)from;
}

template <class T, int64_t N>
inline void store(T* to, Vector<T, N> value) {
  *(Vector<T, N>*)to = value;
}

// Whole numbers as wide as T.
template <class T>
struct Whole;
template <>
struct Whole<float> {
  typedef int32_t type;
};
template <>
struct Whole<double> {
  typedef int64_t type;
};
template <class T>
using WholeOf = typename Whole<T>::type;

// Whether any of the numbers is not 0.
template <class T, int64_t N>
inline bool any(Vector<T, N> values) {
  T found = 0;
  for (int64_t i = 0; i < N; ++i) found |= values[i];
  return found != 0;
}

template <class T, int64_t N>
inline T total(Vector<T, N> values) {
  if constexpr (N == 1) {
    return values;
  } else {
    T sum = 0;
    for (int64_t i = 0; i < N; ++i) sum += values[i];
    return sum;
  }
}

}  // namespace metric_zoo::ISA

// x86 with AVX2 and FMA. The standard headers come first: what they define must not be compiled for this set alone.
#include "kernels.h"

#if defined(__x86_64__)
#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2,fma"))), apply_to = function)
#else
#pragma GCC target("avx2,fma")
#endif
#define ISA avx2
#define VECTOR_BYTES 32
#define ROWS 6
#include "isa.h"
#if defined(__clang__)
#pragma clang attribute pop
#endif
#endif

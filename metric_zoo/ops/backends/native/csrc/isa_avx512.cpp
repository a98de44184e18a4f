// x86 with AVX-512 (F, VL, DQ, BW). The standard headers come first, as in isa_avx2.cpp.
#include "kernels.h"

#if defined(__x86_64__)
#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx512f,avx512vl,avx512dq,avx512bw,avx2,fma"))), \
                             apply_to = function)
#else
#pragma GCC target("avx512f,avx512vl,avx512dq,avx512bw,avx2,fma,prefer-vector-width=512")
#endif
#define ISA avx512
#define VECTOR_BYTES 64
#define ROWS 14
#include "isa.h"
#if defined(__clang__)
#pragma clang attribute pop
#endif
#endif

// Any processor: SSE2 on x86, NEON on Arm.
#include "kernels.h"

#define ISA baseline
#define VECTOR_BYTES 16
#define ROWS 6
#include "isa.h"

// The single-precision kernels of each instruction set. One may be called only where the processor has it.
#pragma once

#include "attention.h"

namespace inferno::kernels {

extern const AttentionKernel kAvx512Attention;
void                         gelu_avx512(const float * x, float * y, int64_t n);
void                         rms_norm_avx512(const float * x, const float * w, float * y, int64_t n, float epsilon);

}  // namespace inferno::kernels

// The kernels of each instruction set. One may be called only where the processor has it: see usable_kernels().
#pragma once

#include "matmul.h"

namespace inferno::kernels {

extern const Kernels kAvx512Kernels;
extern const Kernels kAvxVnniKernels;
extern const Kernels kAvx2Kernels;

}  // namespace inferno::kernels

// The attention kernels of each instruction set. One may be called only where the processor has it.
#pragma once

#include "attention.h"

namespace inferno::kernels {

extern const AttentionKernel kAvx512Attention;

}  // namespace inferno::kernels

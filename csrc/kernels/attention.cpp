#include "attention.h"

#include "attention_kinds.h"

namespace inferno::kernels {

const AttentionKernel * attention_kernel() {
#if defined(__x86_64__)
    static const bool usable = [] {
        __builtin_cpu_init();
        return __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") &&
               __builtin_cpu_supports("avx512dq");
    }();
    return usable ? &kAvx512Attention : nullptr;
#else
    return nullptr;
#endif
}

}  // namespace inferno::kernels

// Which single-precision kernels this processor has.
#include "attention.h"
#include "float_kinds.h"
#include "gelu.h"
#include "rms_norm.h"

namespace inferno::kernels {

#if defined(__x86_64__)

namespace {

bool has_avx512() {
    static const bool has = [] {
        __builtin_cpu_init();
        return __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") &&
               __builtin_cpu_supports("avx512dq");
    }();
    return has;
}

}  // namespace

const AttentionKernel * attention_kernel() {
    return has_avx512() ? &kAvx512Attention : nullptr;
}

GeluKernel gelu_kernel() {
    return has_avx512() ? gelu_avx512 : nullptr;
}

RmsNormKernel rms_norm_kernel() {
    return has_avx512() ? rms_norm_avx512 : nullptr;
}

#else

const AttentionKernel * attention_kernel() {
    return nullptr;
}

GeluKernel gelu_kernel() {
    return nullptr;
}

RmsNormKernel rms_norm_kernel() {
    return nullptr;
}

#endif

}  // namespace inferno::kernels

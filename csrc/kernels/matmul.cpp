#include "matmul.h"

#include "matmul_kinds.h"

namespace inferno::kernels {

std::vector<const Kernels *> usable_kernels() {
    std::vector<const Kernels *> result;
#if defined(__x86_64__)
    const auto has = [](const auto &... features) { return (features && ...); };
    __builtin_cpu_init();
    if (has(__builtin_cpu_supports("avx512bw"), __builtin_cpu_supports("avx512vl"), __builtin_cpu_supports("avx512dq"),
            __builtin_cpu_supports("avx512vnni"))) {
        result.push_back(&kAvx512Kernels);
    }
    if (has(__builtin_cpu_supports("avx2"), __builtin_cpu_supports("fma"), __builtin_cpu_supports("f16c"))) {
        if (__builtin_cpu_supports("avxvnni")) {
            result.push_back(&kAvxVnniKernels);
        }
        result.push_back(&kAvx2Kernels);
    }
#endif
    return result;
}

const Kernels * best_kernels() {
    static const std::vector<const Kernels *> usable = usable_kernels();
    return usable.empty() ? nullptr : usable.front();
}

}  // namespace inferno::kernels

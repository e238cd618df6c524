#include "cpu_internals.h"

#include <algorithm>
#include <string>

#include <ggml-cpu-impl.h>
#include <ops.h>
#include <traits.h>

static void add_extra_buffer_type(ggml_backend_buffer_type_t type) {
    auto &     types  = ggml_backend_cpu_get_extra_buffer_types();
    const auto is_amx = [](ggml_backend_buffer_type_t other) {
        return std::string(ggml_backend_buft_name(other)) == "AMX";
    };
    types.insert(std::find_if_not(types.begin(), types.end(), is_amx), type);
}

static InfernoRmsNorm rms_norm = nullptr;

static void set_rms_norm(InfernoRmsNorm compute) {
    rms_norm = compute;
}

void inferno_rms_norm_mul(const ggml_compute_params * params, ggml_tensor * norm, ggml_tensor * product) {
    if (rms_norm == nullptr || !rms_norm(params, norm, product)) {
        ggml_compute_forward_rms_norm_mul_fused(params, norm, product);
    }
}

const InfernoCpuInternals * inferno_cpu_internals() {
    static const InfernoCpuInternals internals = {add_extra_buffer_type, ggml_barrier, ggml_threadpool_chunk_set,
                                                  ggml_threadpool_chunk_add, set_rms_norm};
    return &internals;
}

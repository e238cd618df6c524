// What our kernels need of ggml's CPU backend beyond its interface for users. Compiled into the backend, which may be a
// module that is chosen when the program runs; so nothing here may be linked against, all is reached through the table.
#pragma once

#include <ggml-backend.h>

struct ggml_compute_params;
struct ggml_threadpool;

using InfernoRmsNorm = bool (*)(const ggml_compute_params * params, const ggml_tensor * norm, ggml_tensor * product);

struct InfernoCpuInternals {
    // Has `type`, whose context is a ggml::cpu::extra_buffer_type, asked before ggml's own, except AMX's.
    void (*add_extra_buffer_type)(ggml_backend_buffer_type_t type);
    // Inside an operation that all threads of a pool compute together.
    void (*barrier)(ggml_threadpool * pool);
    void (*chunk_set)(ggml_threadpool * pool, int value);
    int (*chunk_add)(ggml_threadpool * pool, int value);
    // Has `compute` asked for every RMS normalization that is times weights, which ggml does in one go: it gets both
    // operations, and answers false for what ggml is to do itself.
    void (*set_rms_norm)(InfernoRmsNorm compute);
};

// Under this name in every build of the backend.
extern "C" {
GGML_BACKEND_API const InfernoCpuInternals * inferno_cpu_internals();
// What ggml-cpu.c calls instead of ggml_compute_forward_rms_norm_mul_fused.
void inferno_rms_norm_mul(const ggml_compute_params * params, ggml_tensor * norm, ggml_tensor * product);
}

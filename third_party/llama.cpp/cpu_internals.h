// What our kernels need of ggml's CPU backend beyond its interface for users. Compiled into the backend, which may be a
// module that is chosen when the program runs; so nothing here may be linked against, all is reached through the table.
#pragma once

#include <ggml-backend.h>

struct ggml_threadpool;

struct InfernoCpuInternals {
    // Has `type`, whose context is a ggml::cpu::extra_buffer_type, asked before ggml's own, except AMX's.
    void (*add_extra_buffer_type)(ggml_backend_buffer_type_t type);
    // Inside an operation that all threads of a pool compute together.
    void (*barrier)(ggml_threadpool * pool);
    void (*chunk_set)(ggml_threadpool * pool, int value);
    int (*chunk_add)(ggml_threadpool * pool, int value);
};

// Under this name in every build of the backend.
extern "C" {
GGML_BACKEND_API const InfernoCpuInternals * inferno_cpu_internals();
}

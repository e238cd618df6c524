// ggml's CPU backend, as operations that run inside it see it.
#pragma once

#include <cpu_internals.h>

namespace inferno::kernels {

// Set by register_weights_buffer_type(), before anything is computed.
extern const InfernoCpuInternals * cpu_backend;

}  // namespace inferno::kernels

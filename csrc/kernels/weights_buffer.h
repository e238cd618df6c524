// A buffer type of ggml's CPU backend that keeps weight matrices packed for our kernels and multiplies with them.
#pragma once

#include <ggml-backend.h>

struct InfernoCpuInternals;

namespace inferno::kernels {

// Null where this processor has none of our kernels.
ggml_backend_buffer_type_t weights_buffer_type();

// Offers the buffer type to llama.cpp's loader, which asks for each weight whether it can be used. To be called once,
// before the first model is loaded and once all backends are known. `cpu` is what our operations compute with; it stays.
void register_weights_buffer_type(const InfernoCpuInternals & cpu);

// Whether weights that are loaded from now on are packed, and attention and GELU computed by us. On at first. Weights that
// are packed already go on being computed by us. Any thread.
void use_kernels(bool use);

}  // namespace inferno::kernels

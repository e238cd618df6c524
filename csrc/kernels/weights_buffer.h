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

// Has ggml ask us for RMS normalizations, a part of the above: ggml computes them together with the product that follows,
// and asks no buffer type.
void register_rms_norm();

// Whether weights that this thread loads from now on are packed, and attention, GELU and RMS normalization in what it
// computes done by us. On at first. Weights that are packed already go on being computed by us.
void use_kernels(bool use);

// Whether the memory of weights that this thread packs from now on is locked; where it cannot be, the load fails. Off at
// first.
void lock_weights(bool lock);

}  // namespace inferno::kernels

// ggml's GELU (the tanh form, Hendrycks and Gimpel 2016) in single precision; ggml looks it up, one number at a time, in a
// table of half-precision results.
#pragma once

#include <ggml.h>

struct ggml_compute_params;

namespace inferno::kernels {

// Null where this processor has none: y[i] = gelu(x[i]) for i < n.
using GeluKernel = void (*)(const float * x, float * y, int64_t n);
GeluKernel gelu_kernel();

bool takes_gelu(const ggml_tensor * op);
// Called by all threads together. REQUIRES: takes_gelu(op).
void compute_gelu(const ggml_compute_params * params, ggml_tensor * op);

}  // namespace inferno::kernels

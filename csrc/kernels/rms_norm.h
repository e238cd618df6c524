// RMS normalization (Zhang and Sennrich 2019) times its weights: y[i] = x[i] / sqrt(mean(x^2) + epsilon) * w[i]. ggml adds the
// squares up one after another, in double precision; here lanes are added up, in double precision too.
#pragma once

#include <cstdint>

#include <ggml.h>

struct ggml_compute_params;

namespace inferno::kernels {

// One row of n. Null where this processor has none.
using RmsNormKernel = void (*)(const float * x, const float * w, float * y, int64_t n, float epsilon);
RmsNormKernel rms_norm_kernel();

// `product` = `norm` times weights. Called by all threads together; false, having done nothing, when this is not for here.
bool compute_rms_norm(const ggml_compute_params * params, const ggml_tensor * norm, ggml_tensor * product);

}  // namespace inferno::kernels

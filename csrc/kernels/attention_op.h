// ggml's FLASH_ATTN_EXT by our kernel: which of them it takes, what memory they need, and their computation.
#pragma once

#include <ggml.h>

struct ggml_compute_params;

namespace inferno::kernels {

// Half-precision keys and values, whole head sizes, no ALiBi, soft cap or sinks. The rest is ggml's own business.
bool takes_attention(const ggml_tensor * op);

// REQUIRES of both: takes_attention(op).
size_t attention_work_bytes(int n_threads, const ggml_tensor * op);
// Called by all threads together.
void compute_attention(const ggml_compute_params * params, ggml_tensor * op);

}  // namespace inferno::kernels

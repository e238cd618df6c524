#include "gelu.h"

#include <ggml-cpu-impl.h>

#include "float_kinds.h"

namespace inferno::kernels {

bool takes_gelu(const ggml_tensor * op) {
    return op->op == GGML_OP_UNARY && ggml_get_unary_op(op) == GGML_UNARY_OP_GELU && gelu_kernel() != nullptr &&
           op->type == GGML_TYPE_F32 && op->src[0]->type == GGML_TYPE_F32 && ggml_is_contiguous(op) &&
           ggml_is_contiguous(op->src[0]);
}

void compute_gelu(const ggml_compute_params * params, ggml_tensor * op) {
    const int64_t n     = ggml_nelements(op);
    const int64_t begin = n * params->ith / params->nth;
    const int64_t end   = n * (params->ith + 1) / params->nth;
    gelu_kernel()(static_cast<const float *>(op->src[0]->data) + begin, static_cast<float *>(op->data) + begin,
                  end - begin);
}

}  // namespace inferno::kernels

#include "rms_norm.h"

#include <cstring>

#include <ggml-cpu-impl.h>

#include "float_kinds.h"
#include "tensor_row.h"

namespace inferno::kernels {

namespace {

bool has_float_rows(const ggml_tensor * tensor) {
    return tensor->type == GGML_TYPE_F32 && tensor->nb[0] == sizeof(float);
}

}  // namespace

bool compute_rms_norm(const ggml_compute_params * params, const ggml_tensor * norm, ggml_tensor * product) {
    const ggml_tensor * x       = norm->src[0];
    const ggml_tensor * weights = product->src[0] == norm ? product->src[1] : product->src[0];
    if (rms_norm_kernel() == nullptr || !has_float_rows(x) || !has_float_rows(weights) || !has_float_rows(product) ||
        weights->ne[0] != x->ne[0]) {
        return false;
    }
    float epsilon;
    std::memcpy(&epsilon, norm->op_params, sizeof epsilon);
    const int64_t n_rows = ggml_nrows(x);
    for (int64_t row = params->ith; row < n_rows; row += params->nth) {
        const int64_t i1 = row % x->ne[1], i2 = row / x->ne[1] % x->ne[2], i3 = row / (x->ne[1] * x->ne[2]);
        const char *  w  = row_of(weights, i1 % weights->ne[1], i2 % weights->ne[2], i3 % weights->ne[3]);
        rms_norm_kernel()(reinterpret_cast<const float *>(row_of(x, row)), reinterpret_cast<const float *>(w),
                          reinterpret_cast<float *>(row_of(product, row)), x->ne[0], epsilon);
    }
    return true;
}

}  // namespace inferno::kernels

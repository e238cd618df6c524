// Where the rows of a tensor are.
#pragma once

#include <cstddef>
#include <cstdint>

#include <ggml.h>

namespace inferno::kernels {

inline char * row_of(const ggml_tensor * tensor, int64_t i1, int64_t i2, int64_t i3) {
    return static_cast<char *>(tensor->data) + static_cast<size_t>(i1) * tensor->nb[1] +
           static_cast<size_t>(i2) * tensor->nb[2] + static_cast<size_t>(i3) * tensor->nb[3];
}

// Of all rows, one after another.
inline char * row_of(const ggml_tensor * tensor, int64_t row) {
    return row_of(tensor, row % tensor->ne[1], row / tensor->ne[1] % tensor->ne[2],
                  row / (tensor->ne[1] * tensor->ne[2]));
}

}  // namespace inferno::kernels

// Computes a graph on the CPU as llama.cpp does, whether the CPU's backend is linked in or a module.
#pragma once

#include <ggml-backend.h>

namespace testing {

inline ggml_status compute(ggml_cgraph * graph, int threads) {
    ggml_backend_t backend = ggml_backend_init_by_type(GGML_BACKEND_DEVICE_TYPE_CPU, nullptr);
    const auto     reg     = ggml_backend_dev_backend_reg(ggml_backend_get_device(backend));
    reinterpret_cast<ggml_backend_set_n_threads_t>(
        ggml_backend_reg_get_proc_address(reg, "ggml_backend_set_n_threads"))(backend, threads);
    const ggml_status status = ggml_backend_graph_compute(backend, graph);
    ggml_backend_free(backend);
    return status;
}

}  // namespace testing

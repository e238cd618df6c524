#include "cpu_internals.h"

#include <algorithm>
#include <string>

#include <ggml-cpu-impl.h>
#include <traits.h>

static void add_extra_buffer_type(ggml_backend_buffer_type_t type) {
    auto &     types  = ggml_backend_cpu_get_extra_buffer_types();
    const auto is_amx = [](ggml_backend_buffer_type_t other) {
        return std::string(ggml_backend_buft_name(other)) == "AMX";
    };
    types.insert(std::find_if_not(types.begin(), types.end(), is_amx), type);
}

const InfernoCpuInternals * inferno_cpu_internals() {
    static const InfernoCpuInternals internals = {add_extra_buffer_type, ggml_barrier, ggml_threadpool_chunk_set,
                                                  ggml_threadpool_chunk_add};
    return &internals;
}

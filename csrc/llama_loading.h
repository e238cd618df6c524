// Options -> llama.cpp's parameter structs. Shared by loading and by the memory estimate, so that both mean the same.
#pragma once

#include <llama.h>

#include <memory>
#include <vector>

#include "model.h"
#include "params.h"

namespace inferno {

struct FreeModel {
    void operator()(llama_model * model) const { llama_model_free(model); }
};
struct FreeContext {
    void operator()(llama_context * context) const { llama_free(context); }
};
struct FreeBatch {
    void operator()(llama_batch_ext * batch) const { llama_batch_ext_free(batch); }
};
using ModelPointer   = std::unique_ptr<llama_model, FreeModel>;
using ContextPointer = std::unique_ptr<llama_context, FreeContext>;
using BatchPointer   = std::unique_ptr<llama_batch_ext, FreeBatch>;

// What llama_model_params refer to; must live as long as they are used.
struct Placement {
    std::vector<ggml_backend_dev_t> devices = {nullptr};  // null at the end; nothing else: the processor alone
    std::vector<float>              shares;               // llama_max_devices() of them, or none: by free memory
    llama_split_mode                split_mode = LLAMA_SPLIT_MODE_LAYER;
    int32_t                         gpu_layers = 0;

    bool on_host() const { return devices.size() == 1; }
};

// Once per process, before anything else of llama.cpp. Throws Error(service_unavailable) when this processor has no code.
void start_llama();

// While a step is cut short on purpose, llama.cpp's complaints about it are not shown.
void expect_abort(bool expected);

// `options` with what "automatic" and the model's limits make of it.
EngineOptions effective_options(const EngineOptions & options, const ModelInfo & info);

// Also says whether our CPU kernels are to be used by what this thread loads next.
llama_model_params   model_params(const EngineOptions & options, const Placement & placement);
llama_context_params generation_params(const EngineOptions & options);
llama_context_params embedding_params(const EngineOptions & options, const ModelInfo & info);

// True for models like BERT that see the whole input at once and keep no KV cache.
bool is_encoder(const ModelInfo & info);

// Throws Error(invalid_request) when the model's heads are no whole blocks of the KV cache's types.
void check_cache_types(const llama_model * model, const EngineOptions & options);

// Throws Error(service_unavailable) when there is no memory for it, or a device cannot hold a layer's KV cache.
ContextPointer make_context(llama_model * model, const llama_context_params & params);

// What prefixes may take outside the KV cache.
uint64_t store_bytes(const EngineOptions & options);

// Adds up what a context occupies, and its model unless `with_model` is false.
MemoryEstimate memory_of(const llama_context * context, bool with_model = true);

}  // namespace inferno

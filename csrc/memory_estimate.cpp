#include "error.h"
#include "llama_loading.h"
#include "model.h"

namespace inferno {

MemoryEstimate estimate_memory(const std::string & path, const EngineOptions & options) {
    start_llama();
    const ModelInfo      info      = inspect_model(path);
    const EngineOptions  effective = effective_options(options, info);
    llama_model_params   params    = model_params(effective);
    params.no_alloc                = true;  // sizes only; llama.cpp wants no memory map with it
    params.load_mode               = LLAMA_LOAD_MODE_NONE;
    const ModelPointer model(llama_model_load_from_file(path.c_str(), params));
    if (!model) {
        throw Error(ErrorCode::invalid_request, "The file is not a model that can be loaded.", "model");
    }
    const auto context = make_context(
        model.get(), info.can_generate ? generation_params(effective) : embedding_params(effective, info));
    MemoryEstimate result = memory_of(context.get());
    result.store_bytes    = info.can_generate ? store_bytes(effective) : 0;
    return result;
}

}  // namespace inferno

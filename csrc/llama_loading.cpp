#include "llama_loading.h"

#include <llama-ext.h>
#include <llama-model.h>

#include <algorithm>
#include <atomic>
#include <cstdio>
#include <mutex>
#include <string>

#include "backends.h"
#include "devices.h"
#include "error.h"
#include "host_buffers.h"
#include "kernels/weights_buffer.h"
#include "processors.h"
#include "software_devices.h"

namespace inferno {

namespace {

std::atomic<int>  log_level{2};
std::atomic<bool> aborting{false};

int rank(ggml_log_level level) {
    switch (level) {
        case GGML_LOG_LEVEL_ERROR:
            return 1;
        case GGML_LOG_LEVEL_WARN:
            return 2;
        case GGML_LOG_LEVEL_INFO:
            return 3;
        default:
            return 4;
    }
}

void log_line(ggml_log_level level, const char * text, void *) {
    thread_local int last = 4;
    // A continuation belongs to the line before it.
    last = level == GGML_LOG_LEVEL_CONT ? last : rank(level);
    if (last <= log_level.load(std::memory_order_relaxed) && !aborting.load(std::memory_order_relaxed)) {
        std::fputs(text, stderr);
    }
}

ggml_type cache_type_of(const std::string & name) {
    for (int type = 0; type < GGML_TYPE_COUNT; ++type) {
        if (name == ggml_type_name(static_cast<ggml_type>(type))) {
            return static_cast<ggml_type>(type);
        }
    }
    throw Error(ErrorCode::internal_error, "There is no type " + name + ".");
}

llama_flash_attn_type flash_attention_of(const std::string & name) {
    return name == "on"    ? LLAMA_FLASH_ATTN_TYPE_ENABLED
           : name == "off" ? LLAMA_FLASH_ATTN_TYPE_DISABLED
                           : LLAMA_FLASH_ATTN_TYPE_AUTO;
}

// llama.cpp ends the process over a tensor that its device cannot take in one piece.
void check_cache_size(const llama_model * model, const llama_context_params & params) {
    const llama_hparams & sizes = model->hparams;
    if (!params.offload_kqv || !sizes.causal_attn) {
        return;
    }
    const std::unique_ptr<ggml_context, void (*)(ggml_context *)> room(
        ggml_init({2 * sizes.n_layer() * ggml_tensor_overhead(), nullptr, true}), ggml_free);
    const auto check = [&](ggml_backend_dev_t device, ggml_type type, uint32_t columns) {
        const ggml_tensor * tensor = ggml_new_tensor_2d(room.get(), type, columns, params.n_ctx);
        if (columns > 0 && !ggml_backend_dev_supports_op(device, tensor)) {
            throw Error(ErrorCode::service_unavailable,
                        "Device " + std::string(ggml_backend_dev_name(device)) + " cannot hold " +
                            std::to_string(ggml_nbytes(tensor) >> 20) +
                            " MiB of a layer's KV cache in one piece: it takes a smaller context_size or parallel, or "
                            "kv_offload = false.");
        }
    };
    for (uint32_t layer = 0; layer < sizes.n_layer(); ++layer) {
        ggml_backend_dev_t device = model->dev_layer(static_cast<int>(layer));
        if (is_gpu(device)) {
            check(device, params.type_k, sizes.n_embd_k_gqa(layer));
            check(device, params.type_v, sizes.n_embd_v_gqa(layer));
        }
    }
}

// The most rows that one pass computes; beyond this, scratch memory grows and speed does not.
constexpr int32_t kMaxPass = 512;

}  // namespace

void set_log_level(int level) {
    log_level.store(level);
}

void expect_abort(bool expected) {
    aborting.store(expected, std::memory_order_relaxed);
}

void start_llama() {
    static std::once_flag once;
    std::call_once(once, [] {
        llama_log_set(log_line, nullptr);
        show_software_devices();
        kernels::register_weights_buffer_type(load_backends());
        leave_zeros_to_the_system();
        llama_backend_init();
    });
}

bool is_encoder(const ModelInfo & info) {
    return !info.can_generate && info.architecture.find("bert") != std::string::npos;
}

EngineOptions effective_options(const EngineOptions & options, const ModelInfo & info) {
    EngineOptions result = options;
    if (info.context_train > 0) {
        result.context_size = std::min(result.context_size, info.context_train);
    }
    result.parallel   = std::min(result.parallel, static_cast<int32_t>(llama_max_parallel_sequences()));
    result.batch_size = std::max(result.batch_size, result.parallel);
    result.threads    = result.threads > 0 ? result.threads : usable_cores();
    return result;
}

llama_model_params model_params(const EngineOptions & options, const Placement & placement) {
    kernels::use_kernels(options.cpu_kernels);
    llama_model_params params = llama_model_default_params();
    params.devices            = const_cast<ggml_backend_dev_t *>(placement.devices.data());
    params.n_gpu_layers       = placement.gpu_layers;
    params.split_mode         = placement.split_mode;
    params.tensor_split       = placement.shares.empty() ? nullptr : placement.shares.data();
    return params;
}

llama_context_params generation_params(const EngineOptions & options) {
    llama_context_params params = llama_context_default_params();
    params.n_ctx                = static_cast<uint32_t>(options.context_size) * static_cast<uint32_t>(options.parallel);
    params.n_seq_max            = static_cast<uint32_t>(options.parallel);
    params.n_batch              = static_cast<uint32_t>(options.batch_size);
    params.n_ubatch             = static_cast<uint32_t>(std::min(options.batch_size, kMaxPass));
    // One row of logits a slot, or with drafts two slots' worth of them, though never more than there are rows.
    params.n_outputs_max = std::max(params.n_seq_max, std::min(params.n_batch, 2 * static_cast<uint32_t>(1 + options.draft_tokens)));
    params.n_threads            = options.threads;
    params.n_threads_batch      = options.threads;
    // Measured with batched decoding of a 135M model on two cores: one KV stream a sequence is 1.2 times as fast as
    // one shared cache at 16 sequences and 1.5 times at 32, because attention then sees no foreign cells.
    params.kv_unified = false;
    params.swa_full   = true;  // a trimmed sliding window could not be extended again
    params.no_perf    = true;
    params.offload_kqv     = options.kv_offload;
    params.type_k          = cache_type_of(options.cache_type_k);
    params.type_v          = cache_type_of(options.cache_type_v);
    params.flash_attn_type = flash_attention_of(options.flash_attention);
    return params;
}

llama_context_params embedding_params(const EngineOptions & options, const ModelInfo & info) {
    llama_context_params params = generation_params(options);
    params.embeddings           = true;
    params.n_seq_max            = static_cast<uint32_t>(kMaxEmbedInputs);
    params.n_outputs_max        = 0;
    params.n_ctx                = static_cast<uint32_t>(options.context_size);
    params.kv_unified           = true;
    // Tokens that see those behind them must be in one pass with them.
    const bool whole = is_encoder(info) || !info.causal;
    params.n_batch = params.n_ubatch = static_cast<uint32_t>(whole ? std::max(options.context_size, kMaxPass) : kMaxPass);
    if (is_encoder(info)) {
        if (info.pooling.empty() || info.pooling == "none") {
            params.pooling_type = LLAMA_POOLING_TYPE_MEAN;
        }
    } else if (!info.pooling.empty()) {
        // A decoder may take long inputs in several passes, so pooling is ours.
        params.pooling_type = LLAMA_POOLING_TYPE_NONE;
    }
    return params;
}

ContextPointer make_context(llama_model * model, const llama_context_params & params) {
    check_cache_size(model, params);
    ContextPointer context(llama_init_from_model(model, params));
    if (!context) {
        throw Error(ErrorCode::service_unavailable, "There is not enough memory for this context.");
    }
    return context;
}

uint64_t store_bytes(const EngineOptions & options) {
    return options.prefix_cache ? static_cast<uint64_t>(options.prefix_store_mb) << 20 : 0;
}

void check_cache_types(const llama_model * model, const EngineOptions & options) {
    const auto check = [](const char * field, const std::string & name, uint32_t head) {
        const int64_t block = ggml_blck_size(cache_type_of(name));
        if (head % block != 0) {
            throw Error(ErrorCode::invalid_request,
                        std::string(field) + " cannot be " + name + ": the model's heads of " + std::to_string(head) +
                            " are no whole blocks of " + std::to_string(block) + ".",
                        field);
        }
    };
    for (uint32_t layer = 0; layer < model->hparams.n_layer(); ++layer) {
        check("cache_type_k", options.cache_type_k, model->hparams.n_embd_head_k(layer));
        check("cache_type_v", options.cache_type_v, model->hparams.n_embd_head_v(layer));
    }
}

MemoryEstimate memory_of(const llama_context * context, bool with_model) {
    MemoryEstimate result;
    for (const auto & [type, part] : llama_get_memory_breakdown(context)) {
        const uint64_t model = with_model ? part.model : 0;
        const uint64_t bytes = model + part.context + part.compute;
        result.model_bytes += model;
        result.context_bytes += part.context;
        result.compute_bytes += part.compute;
        ggml_backend_dev_t device = ggml_backend_buft_get_device(type);
        if (bytes > 0 && device != nullptr && is_gpu(device) && !ggml_backend_buft_is_host(type)) {
            result.device_bytes[ggml_backend_dev_name(device)] += bytes;
            result.separate_bytes += shares_host_memory(device) ? 0 : bytes;
        }
    }
    return result;
}

}  // namespace inferno

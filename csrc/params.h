// The knobs: what a request may ask of the sampler, and what an engine is opened with.
//
// A knob is written once, as a member (its default) and a row (its name, range and help). Range checks,
// Python bindings, the OpenAPI document, command-line flags and the reference pages are folded from the rows.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <limits>
#include <optional>
#include <string>
#include <tuple>
#include <vector>

namespace inferno {

using Token = int32_t;

inline constexpr int32_t kMaxParallel = 128;
inline constexpr auto    kCacheTypes  = "f32 f16 bf16 q8_0 q5_1 q5_0 q4_1 q4_0";

struct LogitBias {
    Token token;
    float bias;
};

// A JSON value as text; in Python, and over HTTP, also the value itself.
struct JsonText {
    std::string text;
};

struct SamplingParams {
    int32_t                max_tokens        = 512;
    int32_t                min_tokens        = 0;
    float                  temperature       = 0.7f;
    int32_t                top_k             = 40;
    float                  top_p             = 0.9f;
    float                  min_p             = 0.0f;
    float                  typical_p         = 1.0f;
    float                  repeat_penalty    = 1.1f;
    float                  presence_penalty  = 0.0f;
    float                  frequency_penalty = 0.0f;
    int32_t                penalty_window    = 64;
    std::vector<LogitBias> logit_bias;
    std::optional<int64_t> seed;
    std::vector<std::string> stop;
    std::vector<Token>     stop_token_ids;
    bool                   ignore_eos = false;
    int32_t                logprobs   = -1;
    std::string            grammar;
    JsonText               json_schema;
};

struct EngineOptions {
    int32_t context_size    = 4096;
    int32_t parallel        = 8;
    int32_t batch_size      = 512;
    int32_t threads         = 0;
    int32_t gpu_layers      = -1;
    std::string device;
    std::string split_mode = "layer";
    std::string tensor_split;
    int32_t main_gpu          = 0;
    int32_t device_reserve_mb = 512;
    bool    kv_offload        = true;
    std::string cache_type_k    = "f16";
    std::string cache_type_v    = "f16";
    std::string flash_attention = "auto";
    int32_t queue_size      = 512;
    int32_t step_budget_ms  = 80;
    bool    prefix_cache    = true;
    int32_t prefix_store_mb = 256;
    std::filesystem::path prefix_store_path;
    int32_t draft_tokens    = 8;
    std::filesystem::path draft_model;
    bool    cpu_kernels     = true;
    std::string load_mode   = "read";
};

// One row. For lists `min`/`max` bound the items, `max_items` their number, `max_length` a string's bytes. `choices` are
// all that a string may be, separated by spaces; "" allows any.
template <class Owner, class T>
struct Field {
    const char * name;
    T Owner::*   member;
    double       min;
    double       max;
    const char * help;
    bool         min_exclusive = false;
    size_t       max_items     = 0;
    size_t       max_length    = 0;
    const char * choices       = "";
};

template <class Owner, class T>
Field(const char *, T Owner::*, double, double, const char *) -> Field<Owner, T>;
template <class Owner, class T>
Field(const char *, T Owner::*, double, double, const char *, bool) -> Field<Owner, T>;
template <class Owner, class T>
Field(const char *, T Owner::*, double, double, const char *, bool, size_t) -> Field<Owner, T>;
template <class Owner, class T>
Field(const char *, T Owner::*, double, double, const char *, bool, size_t, size_t) -> Field<Owner, T>;
template <class Owner, class T>
Field(const char *, T Owner::*, double, double, const char *, bool, size_t, size_t, const char *) -> Field<Owner, T>;

inline constexpr int32_t kMaxDraft = 32;  // tokens guessed at once

inline constexpr double kMaxToken    = std::numeric_limits<Token>::max();
inline constexpr double kMaxSafeJson = 9007199254740991.0;  // 2^53 - 1, exact in a JSON number

inline constexpr auto kSamplingFields = std::make_tuple(
    Field{"max_tokens", &SamplingParams::max_tokens, 1, 2000000,
          "Most tokens to generate; the context may end the text sooner."},
    Field{"min_tokens", &SamplingParams::min_tokens, 0, 2000000,
          "End-of-text and stop tokens are not sampled before this many tokens."},
    Field{"temperature", &SamplingParams::temperature, 0, 2,
          "Divides the logits before the softmax; 0 takes the most likely token."},
    Field{"top_k", &SamplingParams::top_k, 0, 1000000, "Keep the k most likely tokens; 0 keeps all."},
    Field{"top_p", &SamplingParams::top_p, 0, 1,
          "Keep the smallest set of tokens whose probabilities add up to p; 1 keeps all."},
    Field{"min_p", &SamplingParams::min_p, 0, 1,
          "Drop tokens less likely than p times the most likely one; 0 keeps all."},
    Field{"typical_p", &SamplingParams::typical_p, 0, 1,
          "Locally typical sampling: keep tokens of near-average surprise up to mass p; 1 keeps all.", true},
    Field{"repeat_penalty", &SamplingParams::repeat_penalty, 0, 10,
          "Divides positive (multiplies negative) logits of tokens in the penalty window; 1 is off.", true},
    Field{"presence_penalty", &SamplingParams::presence_penalty, -2, 2,
          "Subtracted from the logit of each token in the penalty window."},
    Field{"frequency_penalty", &SamplingParams::frequency_penalty, -2, 2,
          "Subtracted from a token's logit once per occurrence in the penalty window."},
    Field{"penalty_window", &SamplingParams::penalty_window, 0, 1000000,
          "How many of the last tokens (prompt included) the penalties look at; 0 is off."},
    Field{"logit_bias", &SamplingParams::logit_bias, -100, 100,
          "Added to the logits of the given token ids.", false, 300},
    Field{"seed", &SamplingParams::seed, -kMaxSafeJson, kMaxSafeJson,
          "Seed of this request's own random numbers; absent draws a fresh one."},
    Field{"stop", &SamplingParams::stop, 0, 0,
          "Texts that end the generation; they are not part of the output.", false, 16, 256},
    Field{"stop_token_ids", &SamplingParams::stop_token_ids, 0, kMaxToken, "Token ids that end the generation.",
          false, 64},
    Field{"ignore_eos", &SamplingParams::ignore_eos, 0, 1, "Never sample an end-of-text token."},
    Field{"logprobs", &SamplingParams::logprobs, -1, 20,
          "Report log-probabilities with this many alternatives a token; -1 reports none."},
    Field{"grammar", &SamplingParams::grammar, 0, 0, "GBNF grammar that the text must follow.", false, 0, 65536},
    Field{"json_schema", &SamplingParams::json_schema, 0, 0,
          "JSON Schema that the text, one JSON value, must follow; not together with grammar.", false, 0, 65536});

inline constexpr auto kEngineFields = std::make_tuple(
    Field{"context_size", &EngineOptions::context_size, 1, 16777216,
          "Tokens one sequence may hold (prompt and output); capped by what the model was trained for."},
    Field{"parallel", &EngineOptions::parallel, 1, kMaxParallel, "Sequences generated at once; more wait in the queue."},
    Field{"batch_size", &EngineOptions::batch_size, 1, 16384, "Most tokens computed in one step."},
    Field{"threads", &EngineOptions::threads, 0, 1024, "Compute threads; 0 takes the physical cores that this process may use."},
    Field{"gpu_layers", &EngineOptions::gpu_layers, -1, 100000,
          "Layers kept on the GPU; -1 takes all that fit. Without a GPU all stay with the processor."},
    Field{"device", &EngineOptions::device, 0, 0,
          "Devices to use, as `inferno gpu list` names them, with commas between; empty takes every GPU, `cpu` none.",
          false, 0, 256},
    Field{"split_mode", &EngineOptions::split_mode, 0, 0,
          "How several devices share a model: layer by layer, row by row of each matrix (CUDA), or not at all (none).",
          false, 0, 8, "none layer row"},
    Field{"tensor_split", &EngineOptions::tensor_split, 0, 0,
          "Each device's share of the layers, as in `3,1`; empty goes by free memory.", false, 0, 256},
    Field{"main_gpu", &EngineOptions::main_gpu, 0, 127, "Which of the devices, from 0, has it all with split_mode none."},
    Field{"device_reserve_mb", &EngineOptions::device_reserve_mb, 0, 1048576,
          "Megabytes of each device's free memory that gpu_layers = -1 does not take."},
    Field{"kv_offload", &EngineOptions::kv_offload, 0, 1,
          "Keep the KV cache of layers on a device there, too; otherwise all of it is in host memory."},
    Field{"cache_type_k", &EngineOptions::cache_type_k, 0, 0, "Type of the keys in the KV cache.", false, 0, 8,
          kCacheTypes},
    Field{"cache_type_v", &EngineOptions::cache_type_v, 0, 0,
          "Type of the values in the KV cache; a quantized one needs flash attention.", false, 0, 8, kCacheTypes},
    Field{"flash_attention", &EngineOptions::flash_attention, 0, 0,
          "Attention in one pass over the KV cache; auto: where the devices can.", false, 0, 8, "auto on off"},
    Field{"queue_size", &EngineOptions::queue_size, 1, 1000000, "Requests that may wait; one more is refused."},
    Field{"step_budget_ms", &EngineOptions::step_budget_ms, 1, 60000,
          "Longest step, in milliseconds, that prompt processing may cause while other texts are generated."},
    Field{"prefix_cache", &EngineOptions::prefix_cache, 0, 1,
          "Keep texts in the KV cache so that a prompt that begins like one computes only the rest."},
    Field{"prefix_store_mb", &EngineOptions::prefix_store_mb, 0, 1048576,
          "Megabytes of host memory for beginnings of texts that have lost their place in the KV cache, and for texts that "
          "gave way to urgent ones; 0 keeps none, and computes the latter again."},
    Field{"prefix_store_path", &EngineOptions::prefix_store_path, 0, 0,
          "Directory for a file that keeps these beginnings between runs, written when a model is unloaded; it holds what "
          "was asked, so only its owner may read it. Empty keeps none.",
          false, 0, 4096},
    Field{"draft_tokens", &EngineOptions::draft_tokens, 0, kMaxDraft,
          "Most tokens guessed from what a text has said before and computed with its next one, where that is the "
          "faster way; 0 guesses none. What is generated stays the same."},
    Field{"draft_model", &EngineOptions::draft_model, 0, 0,
          "GGUF file of a smaller model with the same vocabulary, which guesses where nothing was said before; empty "
          "leaves that out.",
          false, 0, 4096},
    Field{"cpu_kernels", &EngineOptions::cpu_kernels, 0, 1,
          "Compute with Inferno's own CPU kernels where the processor has them, not llama.cpp's."},
    Field{"load_mode", &EngineOptions::load_mode, 0, 0,
          "How the file gets into memory: read it, map it (mmap), lock it there (mlock, mmap_mlock), read past the "
          "page cache (direct), or map it where the device can (auto).",
          false, 0, 16, "read mmap mlock mmap_mlock direct auto"});

// The words of a row's `choices`.
std::vector<std::string> choices_of(const char * choices);

// Throws Error(invalid_request) naming the first field that is out of range, not finite, too long or too many.
void validate(const SamplingParams & params);
void validate(const EngineOptions & options);

}  // namespace inferno

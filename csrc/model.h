// The model as the rest of the engine sees it: a vocabulary, a KV cache and one function that computes a batch.
//
// LlamaModel (model.cpp) is the only code that calls llama_decode and llama_encode. Tests use a FakeModel.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <future>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "batch.h"
#include "params.h"

struct llama_model;
struct llama_vocab;

namespace inferno {

// What a GGUF file says about itself; read without loading weights.
struct ModelInfo {
    std::string architecture;
    std::string name;          // general.name, "" when absent
    std::string description;   // e.g. "llama 135M Q4_1"
    std::string quantization;  // e.g. "Q4_1"
    uint64_t    n_params      = 0;
    uint64_t    size_bytes    = 0;  // of the tensors
    int32_t     context_train = 0;
    int32_t     n_vocab       = 0;
    int32_t     n_embd        = 0;
    int32_t     n_layer       = 0;
    bool        causal        = true;  // tokens see only those before them
    bool        can_generate  = false;
    bool        can_embed     = false;
    std::string pooling;        // "mean", "cls", "last", "none", "rank"
    std::string chat_template;  // Jinja source, "" when absent
    std::map<std::string, std::string> metadata;  // scalar GGUF keys
};

struct MemoryEstimate {
    uint64_t model_bytes   = 0;  // weights
    uint64_t context_bytes = 0;  // KV cache
    uint64_t compute_bytes = 0;  // scratch of the graph
    uint64_t store_bytes   = 0;  // prefixes outside the KV cache, at most

    int32_t                         context_size = 0;    // tokens one sequence may hold
    int32_t                         gpu_layers = 0;      // layers on devices, the output counted as one
    std::map<std::string, uint64_t> device_bytes;        // by a device's name: what of the above lies there
    uint64_t                        separate_bytes = 0;  // of these: not in the host's memory

    // With a model beside it.
    MemoryEstimate & operator+=(const MemoryEstimate & other) {
        model_bytes += other.model_bytes;
        context_bytes += other.context_bytes;
        compute_bytes += other.compute_bytes;
        store_bytes += other.store_bytes;
        separate_bytes += other.separate_bytes;
        for (const auto & [device, bytes] : other.device_bytes) {
            device_bytes[device] += bytes;
        }
        return *this;
    }
    uint64_t total() const { return model_bytes + context_bytes + compute_bytes + store_bytes; }
    uint64_t host_bytes() const { return total() - separate_bytes; }
};

// Thread-safe; lives as long as its model.
class Vocabulary {
public:
    virtual ~Vocabulary() = default;
    virtual int32_t size() const = 0;
    // The raw bytes a token stands for when text is generated; "" for control tokens. A space that SentencePiece
    // models put before a word stays, for generated text continues a prompt. REQUIRES: 0 <= token < size().
    virtual std::string_view piece(Token token) const = 0;
    // True for tokens that end the generation (end of text, end of turn, ...).
    virtual bool is_end(Token token) const = 0;
    virtual const std::vector<Token> & end_tokens() const = 0;
    // `add_special` adds what the model expects around a text (BOS, ...). `parse_special` reads the spelling of a
    // control token, as in "<|im_end|>", as that token: never for text that a user wrote in a chat.
    virtual std::vector<Token> tokenize(std::string_view text, bool add_special, bool parse_special) const = 0;
    // The most bytes of a text that become one token: a text of more than n times as many has more than n tokens.
    // 0 where there is no such number, because parts of a text, spaces for one, become none.
    virtual size_t max_token_bytes() const { return 0; }
    // The pieces in a row, as a stream would show them, but without the space that SentencePiece models put before
    // a whole text. Throws Error(invalid_request, field "tokens") for an id outside the vocabulary.
    virtual std::string detokenize(const std::vector<Token> & tokens, bool render_special) const = 0;
    // Null in tests; chat.* needs llama.cpp's own vocabulary.
    virtual const llama_vocab * native() const { return nullptr; }
};

inline constexpr size_t kMaxEmbedInputs = 64;

enum class DecodeStatus {
    ok,
    no_space,  // the KV cache has no room; the edits are done, no row is
    aborted,   // the abort flag was raised: the edits are done, the slots of its rows must be trimmed to what was there
    failed,    // what the slots of its rows and edits hold is unknown: they must be emptied
};

// Owned and called by one engine thread, vocabulary() and info() aside.
class Model {
public:
    virtual ~Model() = default;

    virtual const ModelInfo &  info() const = 0;
    virtual const Vocabulary & vocabulary() const = 0;

    virtual int32_t context_size() const = 0;  // tokens one sequence may hold
    virtual int32_t parallel() const = 0;      // slots
    virtual int32_t batch_size() const = 0;    // rows one decode() takes
    virtual int32_t max_outputs() const = 0;   // of those, may want logits

    // True when a tail of a slot can be forgotten (not so for recurrent models, which only forget whole slots).
    virtual bool can_trim() const = 0;

    // What a token's rows take outside the KV cache; 0 when rows cannot be taken out.
    virtual size_t token_bytes() const = 0;

    // Applies the edits, then computes the rows (there may be none). A batch of edits alone leaves logits() undefined.
    // REQUIRES: info().can_generate; at most batch_size() rows, max_outputs() with logits; a slot's rows follow the positions it holds.
    virtual DecodeStatus decode(const Batch & batch) = 0;
    // n_vocab logits of batch.rows[row]; valid until the next decode(). REQUIRES: the row wanted logits.
    virtual const float * logits(size_t row) = 0;

    // One L2-normalised vector of n_embd floats for each input. Throws Error(inference_failed).
    // REQUIRES: info().can_embed; each input has at most context_size() tokens; more than one only when together they
    // have at most embed_batch_size() tokens, and at most kMaxEmbedInputs of them.
    virtual std::vector<std::vector<float>> embed(const std::vector<std::vector<Token>> & inputs) = 0;
    virtual int32_t embed_batch_size() const = 0;

    // Any thread: makes a running decode() return `aborted` soon (CPU only), until cleared.
    virtual void set_abort(bool abort) = 0;

    virtual MemoryEstimate memory() const = 0;

    // Null in tests; chat.* needs it for the model's own template.
    virtual const llama_model * native() const { return nullptr; }
};

// Called with 0..1 while weights are read; returning false gives up the load.
using LoadProgress = std::function<bool(float)>;

// Loads in a thread of its own. The future throws Error(invalid_request) when the file cannot be loaded with these
// options, and its destructor waits.
std::future<std::unique_ptr<Model>> start_loading(const std::string & path, const EngineOptions & options,
                                                  const LoadProgress & progress);
// Waits for that.
std::unique_ptr<Model> load_model(const std::string & path, const EngineOptions & options,
                                  const LoadProgress & progress);

// Reads the header only. Throws Error(invalid_request).
ModelInfo inspect_model(const std::string & path);

// llama.cpp's own messages go to stderr up to this level: 0 none, 1 errors, 2 warnings (the default), 3 info, 4 debug.
void set_log_level(int level);

// What loading with `options` would take, without reading weights. Throws Error(invalid_request).
MemoryEstimate estimate_memory(const std::string & path, const EngineOptions & options);

}  // namespace inferno

// What comes out of an engine. Values only: an event owns everything it refers to.
//
// Law of the stream: every accepted request yields zero or more Delta events and then exactly one Finish.
#pragma once

#include <cstdint>
#include <string>
#include <variant>
#include <vector>

#include "error.h"
#include "params.h"

namespace inferno {

using RequestId = uint64_t;

struct TopLogprob {
    Token       token;
    float       logprob;
    std::string bytes;  // the token's raw bytes, not necessarily whole UTF-8 characters
};

// Natural-log probability of a sampled token under the model's raw softmax: temperature, penalties, bias
// and truncation play no part in it.
struct TokenLogprob {
    Token                   token;
    float                   logprob;
    std::string             bytes;
    std::vector<TopLogprob> top;  // the N most likely tokens, most likely first
};

// A piece of generated text: whole UTF-8 characters, never part of a stop string.
struct Delta {
    RequestId                 id;
    std::string               text;      // may be empty while text is held back
    int32_t                   n_tokens;  // tokens sampled since the last Delta of this request
    std::vector<TokenLogprob> logprobs;  // of the tokens whose text has been released
};

enum class FinishReason { stop, length, cancelled, timeout, error };

const char * finish_reason_name(FinishReason reason);

struct Usage {
    int32_t prompt_tokens     = 0;
    int32_t completion_tokens = 0;  // sampled tokens, a closing end-of-text or stop token included
    int32_t cached_tokens     = 0;  // prompt tokens found in the KV cache
};

// Milliseconds on the engine's monotonic clock.
struct Timings {
    double queue_ms   = 0;  // accepted -> first scheduled
    double prefill_ms = 0;  // first scheduled -> first token
    double decode_ms  = 0;  // first token -> end
};

struct Finish {
    RequestId          id;
    FinishReason       reason;
    Usage              usage;
    Timings            timings;
    std::string        stop_match;  // the stop string that ended the text, if one did
    ErrorCode          error_code = ErrorCode::internal_error;  // meaningful when reason is error or timeout
    std::string        error_message;
    std::vector<float> embedding;  // of an embedding request: L2-normalised, n_embd long
};

using Event = std::variant<Delta, Finish>;

}  // namespace inferno

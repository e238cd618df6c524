// The running state of one request. No queues, no decisions.
#pragma once

#include <chrono>
#include <cstdint>
#include <deque>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "batch.h"
#include "event.h"
#include "params.h"
#include "prompt_lookup.h"
#include "sampler.h"
#include "speculation.h"
#include "text_stream.h"

namespace inferno {

using Clock     = std::chrono::steady_clock;
using TimePoint = Clock::time_point;

struct Sequence {
    Sequence(RequestId request_id, std::vector<Token> prompt, SamplingParams sampling)
        : id(request_id), params(std::move(sampling)), tokens(std::move(prompt)),
          n_prompt(static_cast<int32_t>(tokens.size())), text(params.stop) {}

    // Constant once queued.
    RequestId                id;
    SamplingParams           params;
    int32_t                  priority   = 0;
    uint64_t                 cache_salt = 0;  // prefixes are shared only between equal salts
    TimePoint                accepted;
    std::optional<TimePoint> deadline;

    // The text: prompt, then what was generated.
    std::vector<Token> tokens;
    int32_t            n_prompt;

    // Where it is. Invariant: n_past < tokens.size(), for a token is appended only after the one before it ran.
    Slot                        slot     = -1;  // -1 while waiting
    Position                    n_past   = 0;   // tokens[0, n_past) are in the KV cache of `slot`, or in `saved`
    int32_t                     n_cached = 0;   // prompt tokens that were in the cache when it got its first slot
    int32_t                     failures = 0;   // decode() failures it took part in
    std::shared_ptr<SavedState> saved;          // KV state of a preempted sequence
    // What may follow `tokens`, to be computed with them. Of the last step, `n_drafted` tokens of it are in the KV cache
    // after n_past, until they are accepted or trimmed.
    std::vector<Token>          draft;
    int32_t                     n_drafted = 0;
    bool                        draft_is_made = false;  // by a Drafter
    PromptLookup                lookup;
    DraftRecord                 lookup_record;
    DraftRecord                 drafter_record;
    // While it waits for a running sequence, whose prompt begins with tokens[0, split) too, to compute them.
    Sequence *                  leader = nullptr;
    Position                    split  = 0;

    std::optional<TimePoint> scheduled;    // first got a slot
    std::optional<TimePoint> first_token;  // first token sampled

    // Output.
    std::optional<Sampler>   sampler;
    TextStream               text;
    int32_t                  unreported_tokens = 0;  // sampled since the last Delta
    size_t                   pushed_bytes      = 0;  // given to `text` so far
    // Log-probabilities whose text is still held back, each with the offset of its last byte.
    std::deque<std::pair<TokenLogprob, size_t>> held_logprobs;

    int32_t n_tokens() const { return static_cast<int32_t>(tokens.size()); }
    int32_t n_generated() const { return n_tokens() - n_prompt; }
    int32_t n_uncomputed() const { return n_tokens() - n_past; }
    bool    started() const { return scheduled.has_value(); }
    DraftRecord & draft_record() { return draft_is_made ? drafter_record : lookup_record; }
    // One token away from the next sample; otherwise it still computes its prompt.
    bool decoding() const { return n_uncomputed() == 1 && n_generated() > 0; }
};

}  // namespace inferno

// SamplingParams -> a sampler; raw logits -> a token and, when asked, its log-probabilities.
//
// One Sampler belongs to one sequence and is used by one thread at a time. It has its own random numbers, so what it
// draws depends on seed and logits alone, never on neighbours in the batch.
//
// Order of work, as users know it from llama.cpp: bias, penalties, forbidden tokens, grammar; then top_k, typical_p,
// top_p and min_p on the softmax without temperature; then temperature and the draw. NaN counts as -infinity. Tokens
// with equal logits rank by id.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "event.h"
#include "params.h"

namespace inferno {

class Vocabulary;  // model.h

// Constrains the next token. Made by grammar.*; the sampler only asks.
class TokenConstraint {
public:
    virtual ~TokenConstraint() = default;
    // True when `token` may come next.
    virtual bool allows(Token token) = 0;
    // Sets the logits of every token that may not come next to -infinity. These may throw Error(invalid_request).
    virtual void mask(float * logits, int32_t n_vocab) = 0;
    // Tells the constraint that `token` was chosen. REQUIRES: allows(token).
    virtual void accept(Token token) = 0;
    // True when nothing may follow but the end of the text.
    virtual bool complete() = 0;
};

struct Sampled {
    Token        token;
    TokenLogprob logprob;  // filled only when SamplingParams::logprobs >= 0
};

class Sampler {
public:
    // `prompt` feeds the penalty window. `constraint` may be null.
    // REQUIRES: validate(params) has passed, its token ids are in the vocabulary, and `vocabulary` outlives this.
    Sampler(const SamplingParams & params, const Vocabulary & vocabulary, const std::vector<Token> & prompt,
            std::unique_ptr<TokenConstraint> constraint);
    ~Sampler();
    Sampler(Sampler &&) noexcept;
    Sampler & operator=(Sampler &&) noexcept;

    // Draws the next token from `logits` (one raw value a token, not modified) and takes it into the history.
    // End-of-text tokens are out of the question with ignore_eos, they and stop tokens before min_tokens.
    // Throws Error: inference_failed when no token is possible, and what its Constraint throws.
    Sampled sample(const float * logits);

    // True when the constraint lets nothing follow, so that there is nothing to sample.
    bool complete();

private:
    struct State;
    std::unique_ptr<State> state_;
};

}  // namespace inferno

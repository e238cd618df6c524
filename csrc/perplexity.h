// How well a model foretells a text.
#pragma once

#include <cstdint>
#include <string>

#include "params.h"

namespace inferno {

struct Perplexity {
    double  mean_nll = 0;  // mean negative log likelihood of a token, in nats; not finite when the model is broken
    int32_t n_tokens = 0;  // that were foretold: all but the first, as far as the model's context goes
};

// Loads the model, computes the text once and frees it. Throws Error(invalid_request) for a model that does not
// generate and a text of less than two tokens, and what loading throws.
Perplexity measure_perplexity(const std::string & path, const EngineOptions & options, const std::string & text);

}  // namespace inferno

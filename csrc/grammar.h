// GBNF -> TokenConstraint. With chat.*, one of the two rooms that know llama.cpp's grammar machinery.
#pragma once

#include <memory>
#include <string>

#include "params.h"

#include "sampler.h"

namespace inferno {

// The GBNF that `params` ask for, as grammar or as JSON Schema; "" for none.
// Throws Error(invalid_request) naming the field, and for a schema the path in it.
std::string grammar_text(const SamplingParams & params);

// Throws what grammar_text() would throw. Cheap when called again and again with one schema.
void check_grammar(const SamplingParams & params);

// Throws Error(invalid_request, field "grammar") for a grammar that does not parse, recurses to the left, nests
// too deeply or is too large; never returns an unconstrained sampler in its place. Null for an empty grammar.
std::unique_ptr<TokenConstraint> make_grammar(const std::string & gbnf, const Vocabulary & vocabulary);

}  // namespace inferno

// GBNF -> TokenConstraint. With chat.*, one of the two rooms that know llama.cpp's grammar machinery.
#pragma once

#include <memory>
#include <string>

#include "sampler.h"

namespace inferno {

// Throws Error(invalid_request, field "grammar") for a grammar that does not parse, recurses to the left, nests
// too deeply or is too large; never returns an unconstrained sampler in its place. Null for an empty grammar.
std::unique_ptr<TokenConstraint> make_grammar(const std::string & gbnf, const Vocabulary & vocabulary);

}  // namespace inferno

// GBNF, llama.cpp's notation for grammars, and the rules it stands for.
//
// Rules are about bytes: characters beyond ASCII have become the sequences of bytes that UTF-8 writes them with. Text
// that is no UTF-8 follows no grammar.
#pragma once

#include <bitset>
#include <cstdint>
#include <string>
#include <vector>

namespace inferno {

class Vocabulary;  // model.h

using ByteSet = std::bitset<256>;

struct GrammarRules {
    enum class Kind : uint8_t {
        end,          // of an alternative
        rule,         // `value` is a rule
        bytes,        // one byte; `value` is an index of byte_sets
        token,        // the token `value` as a whole
        other_token,  // any token but `value`
    };
    struct Element {
        Kind     kind;
        uint32_t value;
    };

    std::vector<Element>  elements;      // of all alternatives, each closed by an `end`
    std::vector<uint32_t> alternatives;  // index of the first element of each, rule by rule
    std::vector<uint32_t> first;         // alternatives of rule r: first[r] .. first[r + 1] - 1
    std::vector<ByteSet>  byte_sets;
    uint32_t              root         = 0;
    bool                  names_tokens = false;  // there are elements that are tokens

    size_t bytes() const;
};

// Every rule is defined, can come to an end and does not begin with itself. Alternatives that never come to an end are
// left out. `vocabulary` reads tokens by name, as in <|im_end|>; when it is null, they are checked for their form only,
// and the rules are of no use.
// Throws std::invalid_argument, whose text is the end of a sentence about the grammar, for anything else and for what
// is too large.
GrammarRules parse_gbnf(const std::string & text, const Vocabulary * vocabulary);

}  // namespace inferno

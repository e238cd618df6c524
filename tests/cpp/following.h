// Whether a text follows a grammar, without a vocabulary.
#pragma once

#include <string>

#include "gbnf.h"
#include "grammar_automaton.h"

namespace inferno {

inline bool follows(const std::string & gbnf, const std::string & text) {
    const GrammarRules      rules = parse_gbnf(gbnf, nullptr);
    GrammarAutomaton        automaton(rules);
    GrammarAutomaton::State state = automaton.start();
    for (const char byte : text) {
        state = automaton.next(state, static_cast<uint8_t>(byte));
    }
    return automaton.may_end(state);
}

}  // namespace inferno

// One grammar over one vocabulary: which tokens may come where.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>

#include "gbnf.h"
#include "grammar_automaton.h"
#include "params.h"
#include "token_trie.h"

namespace inferno {

// Thread-safe; any number of texts follow it at once.
class CompiledGrammar {
    struct Ground;

public:
    // Where a text is. A value; belongs to one grammar and is used by one thread at a time.
    class Position {
        friend class CompiledGrammar;
        std::shared_ptr<Ground> ground;  // null at the start
        GrammarAutomaton::State state = GrammarAutomaton::kDead;
    };

    // Throws Error(invalid_request) when there are too many ways to begin. REQUIRES: `vocabulary` outlives this.
    CompiledGrammar(GrammarRules rules, std::shared_ptr<const TokenTrie> trie, const Vocabulary & vocabulary);

    // These throw Error(invalid_request) when an ambiguous grammar takes too much work.
    bool                            allows(Position & position, Token token);
    std::shared_ptr<const TokenSet> allowed(Position & position);
    // REQUIRES: allows(position, token).
    void accept(Position & position, Token token);
    // True when nothing may follow but the end of the text.
    bool complete(Position & position);

    size_t bytes() const { return bytes_; }

private:
    Ground &                settle(Position & position);
    GrammarAutomaton::State after(GrammarAutomaton & automaton, GrammarAutomaton::State state, Token token) const;
    std::shared_ptr<const TokenSet> walk(Ground & ground, GrammarAutomaton::State state) const;
    void                    count_bytes(const Ground & ground);

    const GrammarRules                     rules_;
    const std::shared_ptr<const TokenTrie> trie_;
    const Vocabulary &                     vocabulary_;
    std::atomic<size_t>                    bytes_{0};

    // Guarded by mutex_. What has been walked; begun anew when it has become too much.
    std::mutex              mutex_;
    std::shared_ptr<Ground> ground_;
};

}  // namespace inferno

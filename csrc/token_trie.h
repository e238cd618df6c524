// All pieces of a vocabulary, letter by letter: what begins alike is looked at once.
#pragma once

#include <cstdint>
#include <vector>

#include "params.h"

namespace inferno {

class Vocabulary;  // model.h

// A set of tokens, one bit each.
using TokenSet = std::vector<uint64_t>;

inline bool contains(const TokenSet & set, Token token) {
    return (set[static_cast<size_t>(token) / 64] >> (static_cast<size_t>(token) % 64) & 1) != 0;
}

inline void insert(TokenSet & set, Token token) {
    set[static_cast<size_t>(token) / 64] |= uint64_t{1} << (static_cast<size_t>(token) % 64);
}

// Immutable. Tokens without text and those that end a text are not in it.
class TokenTrie {
public:
    explicit TokenTrie(const Vocabulary & vocabulary);

    // Inserts into `out` the tokens whose bytes can all be walked, from `start`; `next(state, byte)` is false where
    // there is no way. States are small values.
    template <class State, class Next>
    void walk(State start, Next next, TokenSet & out) const;

    size_t n_tokens() const { return n_tokens_; }  // of the vocabulary

private:
    // Nodes come in depth-first order.
    struct Node {
        uint32_t end;          // the node after this one and all below it
        uint32_t first_token;  // tokens_[first_token, next node's first_token) end here
        uint16_t depth;        // bytes up to here
        uint8_t  byte;
    };

    std::vector<Node>  nodes_;  // and one after the last
    std::vector<Token> tokens_;
    size_t             max_depth_ = 0;
    size_t             n_tokens_  = 0;
};

template <class State, class Next>
void TokenTrie::walk(State start, Next next, TokenSet & out) const {
    std::vector<State> states(max_depth_ + 1, start);  // by depth
    for (size_t i = 0; i + 1 < nodes_.size();) {
        const Node & node  = nodes_[i];
        const State  state = next(states[node.depth - 1u], node.byte);
        if (!state) {
            i = node.end;
            continue;
        }
        states[node.depth] = state;
        ++i;
        for (uint32_t j = node.first_token; j < nodes_[i].first_token; ++j) {
            insert(out, tokens_[j]);
        }
    }
}

}  // namespace inferno

#include "prompt_lookup.h"

#include <algorithm>

namespace inferno {

namespace {

constexpr size_t kLength = 3;

// Exact for vocabularies of up to two million tokens; beyond that a wrong guess is possible, and is only a wrong guess.
uint64_t key_of(const std::vector<Token> & tokens, size_t end) {
    constexpr uint64_t kMask = (1U << 21) - 1;
    uint64_t           key   = 0;
    for (size_t i = end - kLength; i < end; ++i) {
        key = key << 21 | (static_cast<uint64_t>(tokens[i]) & kMask);
    }
    return key;
}

}  // namespace

std::vector<Token> PromptLookup::propose(const std::vector<Token> & tokens, int32_t most) {
    if (tokens.size() < kLength) {
        return {};
    }
    for (n_known_ = std::max(n_known_, kLength); n_known_ < tokens.size(); ++n_known_) {
        followers_[key_of(tokens, n_known_)] = n_known_;
    }
    const auto found = followers_.find(key_of(tokens, tokens.size()));
    if (found == followers_.end()) {
        return {};
    }
    std::vector<Token> guess;
    for (size_t from = found->second; guess.size() < static_cast<size_t>(std::max(most, 0)); ++from) {
        guess.push_back(from < tokens.size() ? tokens[from] : guess[from - tokens.size()]);
    }
    return guess;
}

}  // namespace inferno

// Guesses how a text goes on: as it did where its last tokens stood before.
//
// Prompt lookup decoding (Saxena, 2023), with one more thing: a guess that reaches the end of the text goes on with
// itself, so that a loop is foreseen as far as one likes.
#pragma once

#include <cstddef>
#include <cstdint>
#include <unordered_map>
#include <vector>

#include "params.h"

namespace inferno {

// Of one text that only grows. Takes time for what is new of it.
class PromptLookup {
public:
    // At most `most` tokens that may follow `tokens`; none when their last three have not stood before.
    std::vector<Token> propose(const std::vector<Token> & tokens, int32_t most);

private:
    std::unordered_map<uint64_t, size_t> followers_;  // of three tokens in a row: where the token after them stood last
    size_t                               n_known_ = 0;
};

}  // namespace inferno

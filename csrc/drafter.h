// What guesses how texts go on with work of its own, as opposed to looking it up.
#pragma once

#include <cstdint>
#include <vector>

namespace inferno {

struct Sequence;

class Drafter {
public:
    virtual ~Drafter() = default;
    // Sets the draft of each to `n` tokens that may follow its text; to none where it has not come so far yet.
    virtual void draft(const std::vector<Sequence *> & sequences, int32_t n) = 0;
    // What a token more of a draft, of all that are drafted together, takes; 0 until something is known.
    virtual double token_ms() const = 0;
};

}  // namespace inferno

// The likeliest tokens of a row of logits, without sorting the row.
#pragma once

#include <cstddef>
#include <vector>

#include "params.h"

namespace inferno {

struct Candidate {
    Token token;
    float logit;
};

// Ranks as sampling does: higher logit first, then lower id.
inline bool ranks_before(const Candidate & a, const Candidate & b) {
    return a.logit != b.logit ? a.logit > b.logit : a.token < b.token;
}

// Finds candidates in rows of one length; keeps its buffers between calls. NaN is never a candidate.
class CandidateSearch {
public:
    // Must come first for a row; `logits` must stay as they are until the next scan().
    void scan(const float * logits, size_t n);

    // The highest logit; -infinity when there is none.
    float max() const { return max_; }
    // The token that ranks first. REQUIRES: max() > -infinity.
    Token best() const;
    // The `k` that rank first, in order (fewer when fewer are above -infinity).
    void top(size_t k, std::vector<Candidate> & out);
    // All with logit >= threshold, unordered. REQUIRES: threshold > -infinity.
    void above(float threshold, std::vector<Candidate> & out) const;
    // Sum of exp(logit - max()) over the row. REQUIRES: max() > -infinity. Relative error below 1e-6.
    double sum_exp() const;

private:
    const float *      logits_ = nullptr;
    size_t             n_      = 0;
    float              max_    = 0;
    std::vector<float> block_max_;
    std::vector<float> scratch_;
};

}  // namespace inferno

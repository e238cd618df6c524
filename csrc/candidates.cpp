#include "candidates.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <functional>
#include <limits>

namespace inferno {

namespace {

constexpr size_t kBlock = 64;
constexpr size_t kLanes = 16;  // independent lanes let the compiler use vector registers

constexpr float kMinusInfinity = -std::numeric_limits<float>::infinity();

float block_max(const float * x) {
    float lanes[kLanes];
    for (size_t j = 0; j < kLanes; ++j) {
        lanes[j] = kMinusInfinity;
    }
    for (size_t i = 0; i < kBlock; i += kLanes) {
        for (size_t j = 0; j < kLanes; ++j) {
            lanes[j] = x[i + j] > lanes[j] ? x[i + j] : lanes[j];  // false for NaN
        }
    }
    return *std::max_element(lanes, lanes + kLanes);
}

float tail_max(const float * x, size_t n) {
    float result = kMinusInfinity;
    for (size_t i = 0; i < n; ++i) {
        result = x[i] > result ? x[i] : result;
    }
    return result;
}

// exp(x) for x <= 0, relative error below 3e-7, without branches so that loops over it vectorise: 2^n * 2^f with
// |f| <= 1/2 and a polynomial for 2^f. NaN and x < -87 give 0.
inline float exp_nonpositive(float x) {
    const float clamped = x > -87.0f ? x : -87.0f;
    const float scaled  = clamped * 1.44269504088896341f;
    const float shifted = scaled + 12582912.0f;  // 1.5 * 2^23: rounds to the nearest integer
    const float whole   = shifted - 12582912.0f;
    const float f       = scaled - whole;
    float       p       = 1.535336188319500e-4f;
    p                   = p * f + 1.339887440266574e-3f;
    p                   = p * f + 9.618437357674640e-3f;
    p                   = p * f + 5.550332471162809e-2f;
    p                   = p * f + 2.402264791363012e-1f;
    p                   = p * f + 6.931472028550421e-1f;
    p                   = p * f + 1.0f;
    const auto exponent = (static_cast<int32_t>(whole) + 127) << 23;
    float      power;
    std::memcpy(&power, &exponent, sizeof power);
    return x > -87.0f ? p * power : 0.0f;
}

// Of exp(x - max). A module for any processor has it once for each width of vectors: 49,152 logits take 117 us without
// AVX and 13 us with AVX-512.
#ifdef INFERNO_VECTOR_CLONES
__attribute__((target_clones("avx512f", "avx2", "default")))
#endif
double sum_of_blocks(const float * x, size_t n_blocks, float max) {
    double total = 0;
    for (size_t block = 0; block < n_blocks; ++block) {
        float lanes[kLanes] = {};
        for (size_t start = block * kBlock; start < (block + 1) * kBlock; start += kLanes) {
            for (size_t j = 0; j < kLanes; ++j) {
                lanes[j] += exp_nonpositive(x[start + j] - max);
            }
        }
        for (const float lane : lanes) {
            total += static_cast<double>(lane);
        }
    }
    return total;
}

}  // namespace

void CandidateSearch::scan(const float * logits, size_t n) {
    logits_ = logits;
    n_      = n;
    block_max_.clear();
    size_t i = 0;
    for (; i + kBlock <= n; i += kBlock) {
        block_max_.push_back(block_max(logits + i));
    }
    if (i < n) {
        block_max_.push_back(tail_max(logits + i, n - i));
    }
    max_ = *std::max_element(block_max_.begin(), block_max_.end());
}

Token CandidateSearch::best() const {
    const auto   block = static_cast<size_t>(std::max_element(block_max_.begin(), block_max_.end()) - block_max_.begin());
    const size_t end   = std::min(n_, (block + 1) * kBlock);
    const auto * found = std::find(logits_ + block * kBlock, logits_ + end, max_);
    return static_cast<Token>(found - logits_);
}

void CandidateSearch::above(float threshold, std::vector<Candidate> & out) const {
    out.clear();
    for (size_t block = 0; block < block_max_.size(); ++block) {
        if (!(block_max_[block] >= threshold)) {
            continue;
        }
        const size_t end = std::min(n_, (block + 1) * kBlock);
        for (size_t i = block * kBlock; i < end; ++i) {
            if (logits_[i] >= threshold) {
                out.push_back({static_cast<Token>(i), logits_[i]});
            }
        }
    }
}

void CandidateSearch::top(size_t k, std::vector<Candidate> & out) {
    // The k-th largest of the blocks' maxima bounds the k-th largest logit from below: k blocks each have one as large.
    float threshold = std::numeric_limits<float>::lowest();
    if (k < block_max_.size()) {
        scratch_         = block_max_;
        const auto kth   = scratch_.begin() + static_cast<std::ptrdiff_t>(k - 1);
        std::nth_element(scratch_.begin(), kth, scratch_.end(), std::greater<>());
        threshold = std::max(threshold, *kth);
    }
    above(threshold, out);
    const size_t keep = std::min(k, out.size());
    std::partial_sort(out.begin(), out.begin() + static_cast<std::ptrdiff_t>(keep), out.end(), ranks_before);
    out.resize(keep);
}

double CandidateSearch::sum_exp() const {
    const size_t whole = n_ / kBlock;
    double       total = sum_of_blocks(logits_, whole, max_);
    for (size_t i = whole * kBlock; i < n_; ++i) {
        total += static_cast<double>(exp_nonpositive(logits_[i] - max_));
    }
    return total;
}

}  // namespace inferno

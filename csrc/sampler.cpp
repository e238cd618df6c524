#include "sampler.h"

#include <algorithm>
#include <cmath>
#include <deque>
#include <limits>
#include <random>
#include <unordered_map>
#include <utility>

#include "candidates.h"
#include "error.h"
#include "model.h"

namespace inferno {

namespace {

constexpr float kMinusInfinity = -std::numeric_limits<float>::infinity();

// Philox4x32-10 (Salmon, Moraes, Dror, Shaw: "Parallel random numbers: as easy as 1, 2, 3", SC 2011): the n-th number
// is a function of seed and n.
class Philox {
public:
    explicit Philox(uint64_t seed) : seed_(seed) {}

    // Uniform in [0, 1), 53 bits.
    double uniform() {
        uint32_t counter[4] = {static_cast<uint32_t>(n_), static_cast<uint32_t>(n_ >> 32), 0, 0};
        uint32_t key[2]     = {static_cast<uint32_t>(seed_), static_cast<uint32_t>(seed_ >> 32)};
        for (int round = 0; round < 10; ++round) {
            const uint64_t a = uint64_t{0xD2511F53} * counter[0];
            const uint64_t b = uint64_t{0xCD9E8D57} * counter[2];
            const uint32_t next[4] = {static_cast<uint32_t>(b >> 32) ^ counter[1] ^ key[0], static_cast<uint32_t>(b),
                                      static_cast<uint32_t>(a >> 32) ^ counter[3] ^ key[1], static_cast<uint32_t>(a)};
            std::copy(next, next + 4, counter);
            key[0] += 0x9E3779B9;
            key[1] += 0xBB67AE85;
        }
        ++n_;
        const uint64_t bits = (uint64_t{counter[0]} << 32 | counter[1]) >> 11;
        return static_cast<double>(bits) * 0x1.0p-53;
    }

private:
    uint64_t seed_;
    uint64_t n_ = 0;
};

uint64_t fresh_seed() {
    std::random_device source;
    return uint64_t{source()} << 32 | source();
}

// The last tokens and how often each occurs, for the penalties.
class PenaltyWindow {
public:
    explicit PenaltyWindow(size_t size) : size_(size) {}

    void push(Token token) {
        if (size_ == 0) {
            return;
        }
        tokens_.push_back(token);
        ++counts_[token];
        if (tokens_.size() > size_) {
            const auto oldest = counts_.find(tokens_.front());
            if (--oldest->second == 0) {
                counts_.erase(oldest);
            }
            tokens_.pop_front();
        }
    }

    const std::unordered_map<Token, int32_t> & counts() const { return counts_; }

private:
    size_t                             size_;
    std::deque<Token>                  tokens_;
    std::unordered_map<Token, int32_t> counts_;
};

bool penalizes(const SamplingParams & params) {
    return params.repeat_penalty != 1.0f || params.presence_penalty != 0.0f || params.frequency_penalty != 0.0f;
}

bool truncates(const SamplingParams & params) {
    return params.top_k > 0 || params.top_p < 1 || params.typical_p < 1 || params.min_p > 0;
}

using Candidates = std::vector<Candidate>;

// Keeps the shortest head of ranked candidates that holds `p` of `total` mass; at least one.
void keep_mass(Candidates & ranked, double p, double total) {
    const double top  = static_cast<double>(ranked.front().logit);
    double       mass = 0;
    for (size_t i = 0; i < ranked.size(); ++i) {
        mass += std::exp(static_cast<double>(ranked[i].logit) - top);
        if (mass >= p * total) {
            ranked.resize(i + 1);
            return;
        }
    }
}

double mass_of(const Candidates & candidates, float top) {
    double total = 0;
    for (const Candidate & candidate : candidates) {
        total += std::exp(static_cast<double>(candidate.logit - top));
    }
    return total;
}

void keep_min_p(Candidates & ranked, float min_p) {
    if (min_p <= 0) {
        return;
    }
    const float threshold = ranked.front().logit + std::log(min_p);
    const auto  below     = [&](const Candidate & candidate) { return candidate.logit < threshold; };
    ranked.erase(std::find_if(ranked.begin() + 1, ranked.end(), below), ranked.end());
}

// Locally typical sampling (Meister et al. 2022): the tokens whose surprise is nearest to the entropy, up to mass p.
void keep_typical(Candidates & ranked, float p) {
    const double total = mass_of(ranked, ranked.front().logit);
    const double top   = static_cast<double>(ranked.front().logit);
    const auto   logp  = [&](const Candidate & c) { return static_cast<double>(c.logit) - top - std::log(total); };
    double       entropy = 0;
    for (const Candidate & candidate : ranked) {
        entropy -= std::exp(logp(candidate)) * logp(candidate);
    }
    const auto distance = [&](const Candidate & c) { return std::fabs(-logp(c) - entropy); };
    std::stable_sort(ranked.begin(), ranked.end(),
                     [&](const Candidate & a, const Candidate & b) { return distance(a) < distance(b); });
    double mass = 0;
    size_t keep = 0;
    while (keep < ranked.size() && mass < static_cast<double>(p)) {
        mass += std::exp(logp(ranked[keep]));
        ++keep;
    }
    ranked.resize(std::max<size_t>(keep, 1));
    std::sort(ranked.begin(), ranked.end(), ranks_before);
}

}  // namespace

struct Sampler::State {
    State(const SamplingParams & sampling, const Vocabulary & vocab, std::unique_ptr<TokenConstraint> limits)
        : params(sampling), vocabulary(vocab), constraint(std::move(limits)),
          window(penalizes(params) ? static_cast<size_t>(params.penalty_window) : 0),
          random(params.seed ? static_cast<uint64_t>(*params.seed) : fresh_seed()),
          work(static_cast<size_t>(vocab.size())) {}

    SamplingParams                   params;
    const Vocabulary &               vocabulary;
    std::unique_ptr<TokenConstraint> constraint;
    PenaltyWindow                    window;
    Philox                           random;
    std::vector<float>               work;  // the row with bias, penalties and masks
    CandidateSearch                  search;
    Candidates                       candidates;
    std::vector<double>              weights;
    int32_t                          n_sampled = 0;

    bool         leaves_row_as_is() const;
    const float * adjusted(const float * logits);
    void         forbid(const std::vector<Token> & tokens);
    Token        draw();
    Token        draw_from_candidates();
    void         find_candidates();
    void         find_nucleus();
    Token        choose(const float * row);
    TokenLogprob logprob(const float * logits, Token token);
};

bool Sampler::State::leaves_row_as_is() const {
    return params.logit_bias.empty() && window.counts().empty() && !params.ignore_eos &&
           n_sampled >= params.min_tokens && constraint == nullptr;
}

void Sampler::State::forbid(const std::vector<Token> & tokens) {
    for (const Token token : tokens) {
        if (token < vocabulary.size()) {
            work[static_cast<size_t>(token)] = kMinusInfinity;
        }
    }
}

const float * Sampler::State::adjusted(const float * logits) {
    if (leaves_row_as_is()) {
        return logits;
    }
    std::copy(logits, logits + work.size(), work.begin());
    for (const LogitBias & bias : params.logit_bias) {
        work[static_cast<size_t>(bias.token)] += bias.bias;
    }
    for (const auto & [token, count] : window.counts()) {
        float & logit = work[static_cast<size_t>(token)];
        logit         = logit > 0 ? logit / params.repeat_penalty : logit * params.repeat_penalty;
        logit -= params.presence_penalty + static_cast<float>(count) * params.frequency_penalty;
    }
    const bool too_early = n_sampled < params.min_tokens;
    if (params.ignore_eos || too_early) {
        forbid(vocabulary.end_tokens());
    }
    if (too_early) {
        forbid(params.stop_token_ids);
    }
    return work.data();
}

// top_k = 0: the smallest set with mass top_p is found by widening a window below the maximum.
void Sampler::State::find_nucleus() {
    const double total = search.sum_exp();
    for (float width = 4;; width *= 2) {
        const float lowest = std::numeric_limits<float>::lowest();
        search.above(width > 256 ? lowest : std::max(lowest, search.max() - width), candidates);
        if (width > 256 || mass_of(candidates, search.max()) >= static_cast<double>(params.top_p) * total) {
            break;
        }
    }
    std::sort(candidates.begin(), candidates.end(), ranks_before);
    keep_mass(candidates, static_cast<double>(params.top_p), total);
}

void Sampler::State::find_candidates() {
    const size_t k = params.top_k > 0 ? static_cast<size_t>(params.top_k) : 0;
    if (k == 0 && params.typical_p >= 1 && params.top_p < 1) {
        find_nucleus();
    } else if (k == 0 && params.typical_p >= 1 && params.min_p > 0) {
        search.above(search.max() + std::log(params.min_p), candidates);
        std::sort(candidates.begin(), candidates.end(), ranks_before);
    } else {
        search.top(k == 0 ? work.size() : k, candidates);
        if (params.typical_p < 1) {
            keep_typical(candidates, params.typical_p);
        }
        if (params.top_p < 1) {
            keep_mass(candidates, static_cast<double>(params.top_p), mass_of(candidates, candidates.front().logit));
        }
    }
    keep_min_p(candidates, params.min_p);
}

Token Sampler::State::draw_from_candidates() {
    const float top   = search.max();
    double      total = 0;
    weights.clear();
    for (const Candidate & candidate : candidates) {
        total += std::exp(static_cast<double>((candidate.logit - top) / params.temperature));
        weights.push_back(total);
    }
    const double target = random.uniform() * total;
    const auto   found  = std::upper_bound(weights.begin(), weights.end(), target);
    const auto   index  = std::min(static_cast<size_t>(found - weights.begin()), candidates.size() - 1);
    return candidates[index].token;
}

Token Sampler::State::draw() {
    if (search.max() == kMinusInfinity) {
        throw Error(ErrorCode::inference_failed, "No token may follow.");
    }
    if (params.temperature == 0) {
        return search.best();
    }
    if (truncates(params)) {
        find_candidates();
    } else {
        search.above(std::numeric_limits<float>::lowest(), candidates);
    }
    return draw_from_candidates();
}

Token Sampler::State::choose(const float * row) {
    search.scan(row, work.size());
    const Token token = draw();
    if (constraint == nullptr || constraint->allows(token)) {
        return token;
    }
    // Most draws obey; only a refused one pays for looking at the whole vocabulary.
    constraint->mask(work.data(), vocabulary.size());
    search.scan(work.data(), work.size());
    return draw();
}

TokenLogprob Sampler::State::logprob(const float * logits, Token token) {
    search.scan(logits, work.size());
    const double normalizer = static_cast<double>(search.max()) + std::log(search.sum_exp());
    const auto   of         = [&](float logit) { return static_cast<float>(static_cast<double>(logit) - normalizer); };
    TokenLogprob result{token, of(logits[token]), std::string(vocabulary.piece(token)), {}};
    if (params.logprobs > 0) {
        search.top(static_cast<size_t>(params.logprobs), candidates);
        for (const Candidate & candidate : candidates) {
            result.top.push_back(
                {candidate.token, of(candidate.logit), std::string(vocabulary.piece(candidate.token))});
        }
    }
    return result;
}

Sampler::Sampler(const SamplingParams & params, const Vocabulary & vocabulary, const std::vector<Token> & prompt,
                 std::unique_ptr<TokenConstraint> constraint)
    : state_(std::make_unique<State>(params, vocabulary, std::move(constraint))) {
    const auto window = static_cast<size_t>(params.penalty_window);
    const auto start  = prompt.size() - std::min(prompt.size(), window);
    for (size_t i = start; i < prompt.size(); ++i) {
        state_->window.push(prompt[i]);
    }
}

Sampler::~Sampler()                              = default;
Sampler::Sampler(Sampler &&) noexcept            = default;
Sampler & Sampler::operator=(Sampler &&) noexcept = default;

Sampled Sampler::sample(const float * logits) {
    State & state = *state_;
    Sampled result{state.choose(state.adjusted(logits)), {}};
    if (state.constraint != nullptr) {
        state.constraint->accept(result.token);
    }
    if (state.params.logprobs >= 0) {
        result.logprob = state.logprob(logits, result.token);
    }
    state.window.push(result.token);
    ++state.n_sampled;
    return result;
}

bool Sampler::complete() {
    return state_->constraint != nullptr && state_->constraint->complete();
}

}  // namespace inferno

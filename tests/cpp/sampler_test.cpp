#include "sampler.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <random>
#include <set>

#include "candidates.h"
#include "error.h"
#include "fake_model.h"
#include "test.h"

namespace inferno {
namespace {

constexpr float kMinusInfinity = -std::numeric_limits<float>::infinity();

// A vocabulary of any size.
class WideVocabulary : public testing::ByteVocabulary {
public:
    explicit WideVocabulary(int32_t size) : size_(size) {}
    int32_t          size() const override { return size_; }
    std::string_view piece(Token) const override { return "x"; }

private:
    int32_t size_;
};

std::vector<float> random_logits(size_t n, uint32_t seed) {
    std::mt19937                    random(seed);
    std::normal_distribution<float> normal(0, 3);
    std::vector<float>              logits(n);
    std::generate(logits.begin(), logits.end(), [&] { return normal(random); });
    return logits;
}

SamplingParams plain() {
    SamplingParams params;
    params.top_k          = 0;
    params.top_p          = 1;
    params.repeat_penalty = 1;
    params.temperature    = 1;
    params.seed           = 1;
    return params;
}

Token sample_once(const SamplingParams & params, const std::vector<float> & logits) {
    const WideVocabulary vocabulary(static_cast<int32_t>(logits.size()));
    return Sampler(params, vocabulary, {}, nullptr).sample(logits.data()).token;
}

// The tokens that many draws give.
std::set<Token> drawn(const SamplingParams & params, const std::vector<float> & logits, int n = 3000) {
    const WideVocabulary vocabulary(static_cast<int32_t>(logits.size()));
    Sampler              sampler(params, vocabulary, {}, nullptr);
    std::set<Token>      result;
    for (int i = 0; i < n; ++i) {
        result.insert(sampler.sample(logits.data()).token);
    }
    return result;
}

// Straightforward reference: (token, logit) ranked, cut by top_k, top_p and min_p.
std::set<Token> allowed(const SamplingParams & params, const std::vector<float> & logits) {
    std::vector<Candidate> ranked;
    for (size_t i = 0; i < logits.size(); ++i) {
        ranked.push_back({static_cast<Token>(i), logits[i]});
    }
    std::sort(ranked.begin(), ranked.end(), ranks_before);
    if (params.top_k > 0) {
        ranked.resize(std::min(ranked.size(), static_cast<size_t>(params.top_k)));
    }
    double total = 0;
    for (const Candidate & c : ranked) {
        total += std::exp(static_cast<double>(c.logit));
    }
    double          mass = 0;
    std::set<Token> result;
    for (const Candidate & c : ranked) {
        const bool likely = c.logit >= ranked[0].logit + std::log(params.min_p);
        if (result.empty() || (mass < static_cast<double>(params.top_p) * total && likely)) {
            result.insert(c.token);
        }
        mass += std::exp(static_cast<double>(c.logit));
    }
    return result;
}

TEST(greedy_takes_the_likeliest) {
    SamplingParams params = plain();
    params.temperature    = 0;
    for (uint32_t seed = 0; seed < 50; ++seed) {
        const auto logits = random_logits(1000, seed);
        CHECK_EQ(sample_once(params, logits), std::max_element(logits.begin(), logits.end()) - logits.begin());
    }
}

TEST(equal_logits_go_to_the_lower_id) {
    SamplingParams params = plain();
    params.temperature    = 0;
    CHECK_EQ(sample_once(params, std::vector<float>(300, 1.0f)), 0);
}

TEST(only_tokens_within_the_truncation_are_drawn) {
    const auto logits = random_logits(700, 3);
    for (const int32_t top_k : {0, 1, 5, 40}) {
        for (const float top_p : {0.0f, 0.3f, 0.9f, 1.0f}) {
            for (const float min_p : {0.0f, 0.05f, 0.5f}) {
                SamplingParams params = plain();
                params.top_k          = top_k;
                params.top_p          = top_p;
                params.min_p          = min_p;
                const auto may        = allowed(params, logits);
                const auto did        = drawn(params, logits, 1000);
                CHECK(std::includes(may.begin(), may.end(), did.begin(), did.end()));
                if (may.size() <= 5) {
                    CHECK(did.size() >= std::min<size_t>(may.size(), 2));
                }
            }
        }
    }
}

TEST(draws_follow_the_distribution) {
    SamplingParams           params = plain();
    const std::vector<float> logits = {std::log(0.5f), std::log(0.3f), std::log(0.15f), std::log(0.05f)};
    const WideVocabulary     vocabulary(4);
    Sampler                  sampler(params, vocabulary, {}, nullptr);
    std::map<Token, int>     counts;
    const int                n = 20000;
    for (int i = 0; i < n; ++i) {
        ++counts[sampler.sample(logits.data()).token];
    }
    double chi_square = 0;
    for (Token token = 0; token < 4; ++token) {
        const double expected = n * std::exp(static_cast<double>(logits[static_cast<size_t>(token)]));
        chi_square += (counts[token] - expected) * (counts[token] - expected) / expected;
    }
    CHECK(chi_square < 16.27);  // 3 degrees of freedom, p = 0.001; the seed is fixed
}

TEST(temperature_sharpens) {
    SamplingParams params = plain();
    params.temperature    = 0.05f;
    CHECK_EQ(drawn(params, {1.0f, 0.0f, -1.0f}).size(), size_t{1});
}

TEST(the_same_seed_draws_the_same) {
    SamplingParams params = plain();
    for (uint32_t seed = 0; seed < 20; ++seed) {
        const auto logits = random_logits(500, seed);
        CHECK_EQ(sample_once(params, logits), sample_once(params, logits));
    }
    const auto logits = random_logits(500, 1);
    std::set<Token> tokens;
    for (int64_t seed = 0; seed < 50; ++seed) {
        params.seed = seed;
        tokens.insert(sample_once(params, logits));
    }
    CHECK(tokens.size() > 5);
}

TEST(penalties_look_at_the_window_only) {
    SamplingParams params    = plain();
    params.temperature       = 0;
    params.presence_penalty  = 2;
    params.penalty_window    = 2;
    const WideVocabulary vocabulary(4);
    const float          logits[] = {3.0f, 2.5f, 2.0f, -9.0f};
    // 0 is out of the window of the prompt {0, 1, 2}, so only 1 and 2 are penalised.
    Sampler sampler(params, vocabulary, {0, 1, 2}, nullptr);
    CHECK_EQ(sampler.sample(logits).token, 0);
    CHECK_EQ(sampler.sample(logits).token, 1);  // 0 and 2 are in the window now
}

TEST(repetition_divides_what_is_positive_and_multiplies_what_is_not) {
    SamplingParams params = plain();
    params.temperature    = 0;
    params.repeat_penalty = 2;
    const WideVocabulary vocabulary(3);
    const float          positive[] = {3.0f, 2.0f, -9.0f};
    CHECK_EQ(Sampler(params, vocabulary, {0}, nullptr).sample(positive).token, 1);
    const float negative[] = {-2.0f, -3.0f, -9.0f};
    CHECK_EQ(Sampler(params, vocabulary, {0}, nullptr).sample(negative).token, 1);
}

TEST(bias_decides) {
    SamplingParams params = plain();
    params.temperature    = 0;
    params.logit_bias     = {{2, 100.0f}};
    CHECK_EQ(sample_once(params, {5.0f, 4.0f, 0.0f}), 2);
}

TEST(the_end_is_out_of_the_question_before_min_tokens) {
    SamplingParams params = plain();
    params.temperature    = 0;
    params.min_tokens     = 1;
    params.stop_token_ids = {1};
    const testing::ByteVocabulary vocabulary;
    std::vector<float>            logits(257, 0.0f);
    logits[testing::ByteVocabulary::kEnd] = 9;
    logits[1]                             = 8;
    logits[2]                             = 7;
    Sampler sampler(params, vocabulary, {}, nullptr);
    CHECK_EQ(sampler.sample(logits.data()).token, 2);
    CHECK_EQ(sampler.sample(logits.data()).token, testing::ByteVocabulary::kEnd);
}

TEST(numbers_that_are_none_are_never_drawn) {
    SamplingParams params = plain();
    CHECK_EQ(sample_once(params, {NAN, 1.0f, kMinusInfinity}), 1);
    params.temperature = 0;
    CHECK_EQ(sample_once(params, {NAN, kMinusInfinity, 1.0f}), 2);
}

TEST(no_possible_token_is_an_error) {
    CHECK_THROWS(sample_once(plain(), std::vector<float>(100, kMinusInfinity)), Error);
}

TEST(log_probabilities_are_of_the_raw_logits) {
    SamplingParams params = plain();
    params.temperature    = 0.1f;
    params.logit_bias     = {{7, 50.0f}};
    params.logprobs       = 3;
    const auto           logits = random_logits(5000, 4);
    const WideVocabulary vocabulary(5000);
    const Sampled        sampled = Sampler(params, vocabulary, {}, nullptr).sample(logits.data());
    double               total   = 0;
    for (const float logit : logits) {
        total += std::exp(static_cast<double>(logit));
    }
    CHECK_EQ(sampled.token, 7);
    CHECK(std::fabs(static_cast<double>(sampled.logprob.logprob) - (static_cast<double>(logits[7]) - std::log(total))) < 1e-4);
    CHECK_EQ(sampled.logprob.top.size(), size_t{3});
    CHECK_EQ(sampled.logprob.top[0].token, std::max_element(logits.begin(), logits.end()) - logits.begin());
}

TEST(typical_sampling_prefers_average_surprise) {
    SamplingParams params = plain();
    params.typical_p      = 0.2f;
    // The entropy is 3.8; the likeliest token's surprise is 1.2, that of the many others 5.0 each.
    std::vector<float> logits(101, std::log(0.7f / 100));
    logits[0] = std::log(0.3f);
    CHECK_EQ(drawn(params, logits, 500).count(0), size_t{0});
}

// Allows even tokens only.
class EvenTokens : public TokenConstraint {
public:
    bool allows(Token token) override { return token % 2 == 0; }
    void mask(float * logits, int32_t n) override {
        for (Token token = 1; token < n; token += 2) {
            logits[token] = kMinusInfinity;
        }
    }
    void accept(Token token) override { CHECK(allows(token)); }
    bool complete() override { return false; }
};

TEST(a_constraint_is_obeyed) {
    const auto           logits = random_logits(301, 8);
    const WideVocabulary vocabulary(301);
    Sampler              sampler(plain(), vocabulary, {}, std::make_unique<EvenTokens>());
    for (int i = 0; i < 300; ++i) {
        CHECK_EQ(sampler.sample(logits.data()).token % 2, 0);
    }
}

TEST(the_search_finds_the_top_of_any_row) {
    CandidateSearch        search;
    std::vector<Candidate> found;
    for (const size_t n : {1, 63, 64, 65, 1000, 4097}) {
        const auto             logits = random_logits(n, static_cast<uint32_t>(n));
        std::vector<Candidate> ranked;
        for (size_t i = 0; i < n; ++i) {
            ranked.push_back({static_cast<Token>(i), logits[i]});
        }
        std::sort(ranked.begin(), ranked.end(), ranks_before);
        search.scan(logits.data(), n);
        for (const size_t k : {1, 7, 64, 5000}) {
            search.top(k, found);
            CHECK_EQ(found.size(), std::min(k, n));
            for (size_t i = 0; i < found.size(); ++i) {
                CHECK_EQ(found[i].token, ranked[i].token);
            }
        }
    }
}

TEST(the_sum_of_exponentials_is_precise) {
    CandidateSearch search;
    const auto      logits = random_logits(49152, 2);
    search.scan(logits.data(), logits.size());
    double expected = 0;
    for (const float logit : logits) {
        expected += std::exp(static_cast<double>(logit) - static_cast<double>(search.max()));
    }
    CHECK(std::fabs(search.sum_exp() / expected - 1) < 1e-6);
}

}  // namespace
}  // namespace inferno

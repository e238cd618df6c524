// The likelihood of a text, computed in one go, against one row at a time through the engine's model.
#include "perplexity.h"

#include <cmath>
#include <cstdio>
#include <cstdlib>

#include "error.h"
#include "model.h"
#include "test.h"

using namespace inferno;

namespace {

// Long enough for two passes.
const std::string kText = [] {
    std::string text;
    for (int i = 0; i < 12; ++i) {
        text += "The ferry leaves at noon, and whoever is late waits for the one at six. ";
    }
    return text;
}();

double by_hand(Model & model) {
    const std::vector<Token> tokens = model.vocabulary().tokenize(kText, true, false);
    double                   sum    = 0;
    for (size_t i = 0; i + 1 < tokens.size(); ++i) {
        Batch batch;
        batch.rows.push_back({0, static_cast<Position>(i), tokens[i], true});
        model.decode(batch);
        const float * logits = model.logits(0);
        double        total  = 0;
        for (int32_t token = 0; token < model.vocabulary().size(); ++token) {
            total += std::exp(static_cast<double>(logits[token]) - static_cast<double>(logits[tokens[i + 1]]));
        }
        sum += std::log(total);
    }
    return sum / static_cast<double>(tokens.size() - 1);
}

}  // namespace

TEST(perplexity_is_that_of_one_row_at_a_time) {
    const char * path = std::getenv("INFERNO_TEST_MODEL");
    if (path == nullptr) {
        std::printf("not run: INFERNO_TEST_MODEL is not set\n");
        return;
    }
    EngineOptions options;
    options.context_size    = 512;
    const auto       model  = load_model(path, options, nullptr);
    const Perplexity found  = measure_perplexity(path, options, kText);
    const double     wanted = by_hand(*model);
    CHECK(found.n_tokens > 128);
    CHECK(std::fabs(found.mean_nll - wanted) < 0.01);
    options.context_size = 64;
    CHECK_EQ(measure_perplexity(path, options, kText).n_tokens, 63);
}

TEST(a_text_that_says_nothing_has_no_perplexity) {
    const char * path = std::getenv("INFERNO_TEST_MODEL");
    if (path == nullptr) {
        std::printf("not run: INFERNO_TEST_MODEL is not set\n");
        return;
    }
    try {
        measure_perplexity(path, EngineOptions{}, "");
        CHECK(false);
    } catch (const Error & error) {
        CHECK_EQ(error.field(), "text");
    }
}

#include "grammar.h"

#include <cstdio>
#include <cstdlib>

#include "error.h"
#include "model.h"
#include "test.h"

namespace inferno {
namespace {

// The vocabulary of the model that INFERNO_TEST_MODEL names; null when it names none.
const Vocabulary * vocabulary() {
    static const std::unique_ptr<Model> model = [] {
        const char *  path = std::getenv("INFERNO_TEST_MODEL");
        EngineOptions options;
        options.parallel     = 1;
        options.context_size = 64;
        return path == nullptr ? nullptr : load_model(path, options, {});
    }();
    if (model == nullptr) {
        std::puts("not run: INFERNO_TEST_MODEL is not set");
    }
    return model == nullptr ? nullptr : &model->vocabulary();
}

std::string repeated(const std::string & text, int n) {
    std::string result;
    for (int i = 0; i < n; ++i) {
        result += text;
    }
    return result;
}

TEST(an_empty_grammar_constrains_nothing) {
    if (const Vocabulary * vocab = vocabulary()) {
        CHECK(make_grammar("", *vocab) == nullptr);
    }
}

TEST(malformed_grammars_are_refused) {
    const Vocabulary * vocab = vocabulary();
    if (vocab == nullptr) {
        return;
    }
    for (const std::string & grammar :
         {std::string("root ::= ("), std::string("other ::= \"a\""), std::string("root ::= missing"),
          std::string("root ::= root \"a\""), std::string("root ::= \"a\"{99999}"), std::string("nonsense"),
          std::string("root ::= \"a\0b\"", 13), "root ::= " + repeated("(", 60000) + "\"a\"" + repeated(")", 60000),
          repeated("r ::= \"a\"\n", 5000)}) {
        try {
            make_grammar(grammar, *vocab);
            testing::fail(__FILE__, __LINE__, "accepted: " + grammar.substr(0, 40));
        } catch (const Error & error) {
            CHECK_EQ(error.field(), "grammar");
        }
    }
}

TEST(parentheses_in_quotes_do_not_nest) {
    if (const Vocabulary * vocab = vocabulary()) {
        CHECK(make_grammar("root ::= \"" + repeated("(", 200) + "\" [(]", *vocab) != nullptr);
    }
}

TEST(only_what_fits_is_allowed_and_the_end_only_when_complete) {
    const Vocabulary * vocab = vocabulary();
    if (vocab == nullptr) {
        return;
    }
    const auto  grammar = make_grammar("root ::= \"yes\"", *vocab);
    const Token yes     = vocab->tokenize("yes", false, false)[0];
    const Token no      = vocab->tokenize("no", false, false)[0];
    const Token end     = vocab->end_tokens()[0];
    CHECK(grammar->allows(yes));
    CHECK(!grammar->allows(no));
    CHECK(!grammar->allows(end));
    grammar->accept(yes);
    CHECK(grammar->allows(end));
    CHECK(!grammar->allows(yes));
}

TEST(masking_agrees_with_asking) {
    const Vocabulary * vocab = vocabulary();
    if (vocab == nullptr) {
        return;
    }
    const auto         grammar = make_grammar("root ::= [0-9]+", *vocab);
    std::vector<float> logits(static_cast<size_t>(vocab->size()), 1.0f);
    grammar->mask(logits.data(), vocab->size());
    for (Token token = 0; token < vocab->size(); token += 7) {
        CHECK_EQ(grammar->allows(token), logits[static_cast<size_t>(token)] == 1.0f);
    }
}

}  // namespace
}  // namespace inferno

#include "prompt_lookup.h"

#include "test.h"

namespace inferno {
namespace {

using Tokens = std::vector<Token>;

TEST(a_text_goes_on_as_it_did_before) {
    PromptLookup lookup;
    CHECK(lookup.propose({1, 2, 3, 4, 5, 6, 1, 2, 3}, 3) == (Tokens{4, 5, 6}));
    CHECK(lookup.propose({1, 2, 3, 4, 5, 6, 1, 2, 3, 4}, 2) == (Tokens{5, 6}));
}

TEST(what_stood_last_is_what_is_guessed) {
    PromptLookup lookup;
    CHECK(lookup.propose({1, 2, 3, 4, 1, 2, 3, 5, 9, 1, 2, 3}, 2) == (Tokens{5, 9}));
}

TEST(two_tokens_alike_are_too_few) {
    PromptLookup lookup;
    CHECK(lookup.propose({}, 4).empty());
    CHECK(lookup.propose({1, 2, 3}, 4).empty());
    CHECK(lookup.propose({1, 2, 3, 9, 2, 3}, 4).empty());
}

TEST(a_guess_at_the_end_of_the_text_goes_on_with_itself) {
    PromptLookup lookup;
    CHECK(lookup.propose({9, 1, 2, 3, 1, 2, 3}, 7) == (Tokens{1, 2, 3, 1, 2, 3, 1}));
    CHECK(PromptLookup().propose({7, 7, 7, 7}, 3) == (Tokens{7, 7, 7}));
    CHECK(PromptLookup().propose({7, 7, 7, 7}, 0).empty());
}

TEST(it_learns_what_it_has_not_been_asked_about) {
    PromptLookup lookup;
    Tokens       text = {1, 2, 3};
    CHECK(lookup.propose(text, 2).empty());
    text.insert(text.end(), {4, 5, 6, 7, 4, 5, 6});
    CHECK(lookup.propose(text, 2) == (Tokens{7, 4}));
}

}  // namespace
}  // namespace inferno

#include "prefix_store.h"

#include <map>
#include <numeric>
#include <random>

#include "test.h"

namespace inferno {
namespace {

constexpr size_t kTokenBytes = 10;
constexpr size_t kBlockBytes = kTokenBytes * kBlockTokens;

// `n_blocks` blocks of tokens; texts with different `own` differ from block `common` on.
std::vector<Token> text(int32_t n_blocks, int32_t common, Token own) {
    std::vector<Token> tokens(static_cast<size_t>(n_blocks) * kBlockTokens, own);
    std::iota(tokens.begin(), tokens.begin() + static_cast<std::ptrdiff_t>(std::min(common, n_blocks)) * kBlockTokens, 0);
    return tokens;
}

Position length(const std::vector<Token> & tokens) {
    return static_cast<Position>(tokens.size());
}

size_t add(PrefixStore & store, const std::vector<Token> & tokens, uint64_t salt = 0) {
    return store.add(tokens, length(tokens), salt).blocks.size();
}

Position longest(const PrefixStore & store, const std::vector<Token> & tokens, uint64_t salt = 0) {
    return store.longest(tokens, length(tokens), salt);
}

TEST(whole_blocks_are_stored_and_found) {
    PrefixStore store(100 * kBlockBytes, kTokenBytes);
    auto        tokens = text(3, 3, 0);
    tokens.push_back(7);
    CHECK_EQ(add(store, tokens), size_t{3});
    CHECK_EQ(store.bytes(), 3 * kBlockBytes);
    CHECK_EQ(longest(store, tokens), 3 * kBlockTokens);
    CHECK_EQ(store.longest(tokens, 3 * kBlockTokens - 1, 0), 2 * kBlockTokens);
    CHECK_EQ(longest(store, {tokens.begin() + kBlockTokens, tokens.end()}), 0);  // not from the start of a text
}

TEST(common_heads_are_stored_once) {
    PrefixStore store(100 * kBlockBytes, kTokenBytes);
    const auto  first  = text(5, 3, 1);
    const auto  second = text(6, 3, 2);
    CHECK_EQ(add(store, first), size_t{5});
    const auto missing = store.add(second, length(second), 0);
    CHECK_EQ(missing.from, 3 * kBlockTokens);
    CHECK_EQ(missing.blocks.size(), size_t{3});
    CHECK_EQ(store.bytes(), 8 * kBlockBytes);
    CHECK_EQ(add(store, first), size_t{0});
    CHECK(store.fetch(first, 3 * kBlockTokens, 0) == store.fetch(second, 3 * kBlockTokens, 0));
}

TEST(what_is_set_aside_is_not_there_for_blocks) {
    PrefixStore store(4 * kBlockBytes, kTokenBytes);
    add(store, text(3, 3, 0));
    CHECK(store.set_aside(kBlockTokens + 1));  // two blocks; the last of the text goes
    CHECK_EQ(store.bytes(), 4 * kBlockBytes);
    CHECK_EQ(longest(store, text(3, 3, 0)), 2 * kBlockTokens);
    CHECK(!store.set_aside(2 * kBlockTokens + 1));
    CHECK_EQ(longest(store, text(3, 3, 0)), 2 * kBlockTokens);
    CHECK_EQ(add(store, text(4, 0, 1)), size_t{2});
    store.give_back(kBlockTokens + 1);
    CHECK_EQ(store.bytes(), 2 * kBlockBytes);
    CHECK_EQ(add(store, text(4, 0, 1)), size_t{2});
}

TEST(salts_share_no_blocks) {
    PrefixStore store(100 * kBlockBytes, kTokenBytes);
    add(store, text(3, 3, 0), 1);
    CHECK_EQ(longest(store, text(3, 3, 0), 2), 0);
    CHECK_EQ(add(store, text(3, 3, 0), 2), size_t{3});
}

TEST(the_least_recently_used_end_goes_first) {
    PrefixStore store(4 * kBlockBytes, kTokenBytes);
    add(store, text(2, 0, 1));
    add(store, text(2, 0, 2));
    store.fetch(text(2, 0, 1), 2 * kBlockTokens, 0);
    add(store, text(1, 0, 3));
    CHECK_EQ(store.bytes(), 4 * kBlockBytes);
    CHECK_EQ(longest(store, text(2, 0, 1)), 2 * kBlockTokens);
    CHECK_EQ(longest(store, text(2, 0, 2)), kBlockTokens);  // its last block went
    CHECK_EQ(longest(store, text(1, 0, 3)), kBlockTokens);
}

TEST(of_a_text_that_is_too_long_the_beginning_is_kept) {
    PrefixStore store(4 * kBlockBytes + 1, kTokenBytes);
    CHECK_EQ(add(store, text(9, 9, 0)), size_t{4});
    CHECK_EQ(longest(store, text(9, 9, 0)), 4 * kBlockTokens);
}

TEST(blocks_that_an_edit_names_outlive_their_place) {
    PrefixStore store(2 * kBlockBytes, kTokenBytes);
    add(store, text(2, 0, 1));
    const auto blocks = store.fetch(text(2, 0, 1), 2 * kBlockTokens, 0);
    blocks[0]->allocate(8);
    const auto missing = store.add(text(2, 0, 2), 2 * kBlockTokens, 0);
    CHECK(missing.blocks[0] != blocks[0] && missing.blocks[1] != blocks[0]);
    CHECK_EQ(blocks[0]->size, size_t{8});
}

TEST(memory_of_blocks_that_went_is_used_again) {
    PrefixStore store(kBlockBytes, kTokenBytes);
    const auto * first = store.add(text(1, 0, 1), kBlockTokens, 0).blocks[0].get();
    CHECK(store.add(text(1, 0, 2), kBlockTokens, 0).blocks[0].get() == first);
}

TEST(a_store_of_nothing_is_off) {
    for (const auto & [limit, token_bytes] : {std::pair<size_t, size_t>{0, 10}, {1000000, 0}, {kBlockBytes - 1, 10}}) {
        PrefixStore store(limit, token_bytes);
        CHECK(!store.on());
        CHECK_EQ(add(store, text(2, 2, 0)), size_t{0});
        CHECK_EQ(longest(store, text(2, 2, 0)), 0);
    }
}

// Against a map of everything that was ever added: what is found was added, and with enough room all of it is found.
TEST(random_texts_are_found_as_far_as_they_were_stored) {
    std::mt19937 random(5);
    for (const size_t capacity : {size_t{6}, size_t{10000}}) {
        PrefixStore                        store(capacity * kBlockBytes, kTokenBytes);
        std::map<std::vector<Token>, bool> added;
        for (int i = 0; i < 400; ++i) {
            std::vector<Token> tokens;
            for (size_t n = random() % 5; n-- > 0;) {
                tokens.insert(tokens.end(), kBlockTokens, static_cast<Token>(random() % 3));
            }
            const Position found = longest(store, tokens);
            Position       known = 0;
            while (known < length(tokens) && added.count({tokens.begin(), tokens.begin() + known + kBlockTokens}) > 0) {
                known += kBlockTokens;
            }
            CHECK(found <= known);
            CHECK(capacity == 6 || found == known);
            CHECK_EQ(store.fetch(tokens, found, 0).size(), static_cast<size_t>(found / kBlockTokens));
            add(store, tokens);
            for (Position n = kBlockTokens; n <= length(tokens); n += kBlockTokens) {
                added[{tokens.begin(), tokens.begin() + n}] = true;
            }
            CHECK(store.bytes() <= capacity * kBlockBytes);
        }
    }
}

TEST(a_cleared_store_is_empty) {
    PrefixStore store(4 * kBlockBytes, kTokenBytes);
    add(store, text(4, 0, 1));
    store.clear();
    CHECK_EQ(store.bytes(), size_t{0});
    CHECK_EQ(add(store, text(4, 0, 2)), size_t{4});
}

}  // namespace
}  // namespace inferno

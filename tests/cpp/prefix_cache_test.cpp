#include "prefix_cache.h"

#include <numeric>

#include "test.h"

namespace inferno {
namespace {

std::vector<Token> range(Token from, Token to) {
    std::vector<Token> tokens(static_cast<size_t>(to - from));
    std::iota(tokens.begin(), tokens.end(), from);
    return tokens;
}

std::vector<Token> joined(std::vector<Token> a, const std::vector<Token> & b) {
    a.insert(a.end(), b.begin(), b.end());
    return a;
}

// Puts `tokens` into a slot and gives it back, as a finished text does.
Slot store(PrefixCache & cache, const std::vector<Token> & tokens, uint64_t salt = 0) {
    const auto placement = cache.acquire(tokens, salt);
    cache.publish(placement->slot, tokens, static_cast<Position>(tokens.size()), salt);
    cache.release(placement->slot);
    return placement->slot;
}

TEST(an_extension_continues_in_place) {
    PrefixCache cache({4, true, true});
    const Slot  slot      = store(cache, range(0, 100));
    const auto  placement = cache.acquire(range(0, 120), 0);
    CHECK_EQ(placement->slot, slot);
    CHECK_EQ(placement->n_cached, 100);
}

TEST(the_last_token_is_always_computed) {
    PrefixCache cache({4, true, true});
    store(cache, range(0, 100));
    CHECK_EQ(cache.acquire(range(0, 100), 0)->n_cached, 99);
}

TEST(another_salt_shares_nothing) {
    PrefixCache cache({4, true, true});
    store(cache, range(0, 100), 1);
    CHECK_EQ(cache.acquire(range(0, 120), 2)->n_cached, 0);
}

TEST(a_running_prompt_is_copied_from) {
    PrefixCache cache({4, true, true});
    const auto  leader = cache.acquire(range(0, 100), 0);
    cache.publish(leader->slot, range(0, 100), 100, 0);
    const auto follower = cache.acquire(joined(range(0, 80), {7, 7}), 0);
    CHECK(follower->slot != leader->slot);
    CHECK_EQ(follower->n_cached, 80);
    CHECK(follower->edits[0].kind == CacheEdit::Kind::copy);
    CHECK_EQ(follower->edits[0].source, leader->slot);
}

TEST(a_long_copy_is_better_than_a_short_match_in_place) {
    PrefixCache cache({3, true, true});
    store(cache, range(0, 30));
    const auto leader = cache.acquire(joined(range(0, 20), range(500, 700)), 0);
    cache.publish(leader->slot, joined(range(0, 20), range(500, 700)), 220, 0);
    CHECK_EQ(cache.acquire(joined(range(0, 20), range(500, 690)), 0)->n_cached, 209);
}

TEST(of_equal_matches_the_one_that_loses_least_is_continued) {
    PrefixCache cache({3, true, true});
    store(cache, range(0, 150));
    const Slot shorter = store(cache, joined(range(0, 100), {7}));
    CHECK_EQ(cache.acquire(joined(range(0, 100), {8, 8}), 0)->slot, shorter);
}

TEST(a_short_head_of_a_long_text_is_copied_not_taken) {
    PrefixCache cache({4, true, true});
    const Slot  slot      = store(cache, range(0, 1000));
    const auto  placement = cache.acquire(joined(range(0, 100), {5, 5, 5}), 0);
    CHECK(placement->slot != slot);
    CHECK_EQ(placement->n_cached, 100);
    cache.release(placement->slot);
    CHECK_EQ(cache.acquire(range(0, 1001), 0)->n_cached, 1000);
}

TEST(the_least_recently_used_slot_is_given_up) {
    PrefixCache cache({2, true, true});
    const Slot  old_slot = store(cache, range(0, 10));
    store(cache, range(100, 110));
    CHECK_EQ(cache.acquire(range(200, 210), 0)->slot, old_slot);
}

TEST(no_slot_when_all_are_busy) {
    PrefixCache cache({1, true, true});
    CHECK(cache.acquire(range(0, 10), 0).has_value());
    CHECK(!cache.acquire(range(0, 10), 0).has_value());
    CHECK(!cache.has_free_slot());
}

TEST(without_trimming_only_whole_texts_are_continued) {
    PrefixCache cache({2, true, false});
    store(cache, range(0, 100));
    CHECK_EQ(cache.acquire(joined(range(0, 50), {9}), 0)->n_cached, 0);
    CHECK_EQ(cache.acquire(range(0, 101), 0)->n_cached, 100);
}

TEST(a_disabled_cache_reuses_nothing) {
    PrefixCache cache({2, false, true});
    store(cache, range(0, 100));
    CHECK_EQ(cache.acquire(range(0, 120), 0)->n_cached, 0);
}

TEST(what_is_overwritten_comes_back_from_the_store) {
    PrefixCache cache({1, true, true, 1000000, 10});
    store(cache, range(0, 300));
    const auto other = cache.acquire(range(1000, 1200), 0);
    CHECK(other->edits[0].kind == CacheEdit::Kind::stash);
    CHECK_EQ(other->edits[0].from, 0);
    CHECK_EQ(other->edits[0].states.size(), size_t{4});  // 256 of 300 tokens
    cache.publish(other->slot, range(1000, 1200), 200, 0);
    cache.release(other->slot);
    CHECK_EQ(cache.available(range(0, 400), 0), 256);
    CHECK_EQ(cache.available(range(0, 400), 9), 0);

    const auto back = cache.acquire(range(0, 400), 0);
    CHECK_EQ(back->n_cached, 256);
    CHECK(back->edits[0].kind == CacheEdit::Kind::stash);  // of the other, before its slot is filled anew
    CHECK(back->edits[1].kind == CacheEdit::Kind::fetch);
    CHECK_EQ(cache.fetched_tokens(), uint64_t{256});
    cache.publish(back->slot, range(0, 400), 400, 0);
    cache.release(back->slot);
    CHECK_EQ(cache.acquire(range(1000, 1300), 0)->edits[0].from, 256);  // 384 of 400, of which it had 256
}

TEST(the_end_of_a_text_that_is_cut_goes_to_the_store) {
    PrefixCache cache({1, true, true, 1000000, 10});
    store(cache, range(0, 200));
    auto        tokens = joined(range(0, 130), {7});
    const auto  placement = cache.acquire(tokens, 0);
    CHECK_EQ(placement->n_cached, 130);
    CHECK(placement->edits[0].kind == CacheEdit::Kind::stash);
    CHECK_EQ(cache.available(range(0, 201), 0), 192);
}

TEST(a_little_that_is_overwritten_is_not_stored) {
    PrefixCache cache({1, true, true, 1000000, 10});
    store(cache, range(0, 63));
    CHECK_EQ(cache.acquire(range(100, 200), 0)->edits.size(), size_t{1});
    CHECK_EQ(cache.stored_bytes(), size_t{0});
}

TEST(a_slot_is_better_than_the_store) {
    PrefixCache cache({2, true, true, 1000000, 10});
    store(cache, range(0, 200));
    store(cache, range(1000, 1200));
    store(cache, range(2000, 2200));  // takes the place of the first
    const auto placement = cache.acquire(range(1000, 1300), 0);
    CHECK_EQ(placement->n_cached, 200);
    CHECK_EQ(cache.fetched_tokens(), uint64_t{0});
}

TEST(what_nobody_knows_is_not_kept) {
    PrefixCache cache({2, true, true, 1000000, 10});
    store(cache, range(0, 200));
    store(cache, range(1000, 1200));
    store(cache, range(2000, 2200));
    CHECK(cache.stored_bytes() > 0);
    cache.forget_idle();
    CHECK_EQ(cache.stored_bytes(), size_t{0});
    CHECK_EQ(cache.available(range(0, 300), 0), 0);
}

TEST(eviction_empties_idle_slots_only) {
    PrefixCache cache({2, true, true});
    store(cache, range(0, 10));
    const auto busy = cache.acquire(range(50, 60), 0);
    CHECK_EQ(cache.evict_idle().size(), size_t{1});
    CHECK_EQ(cache.cached_tokens(), 0);
    CHECK(cache.busy(busy->slot));
}

}  // namespace
}  // namespace inferno

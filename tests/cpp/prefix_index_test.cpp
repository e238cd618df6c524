#include "prefix_index.h"

#include <algorithm>
#include <random>

#include "test.h"

namespace inferno {
namespace {

constexpr Slot kSlots = 6;

// The same by comparing with every slot.
class BruteForce {
public:
    struct Held {
        std::vector<Token> tokens;
        uint64_t           salt = 0;
    };

    PrefixIndex::Match longest(const std::vector<Token> & tokens, Position limit, uint64_t salt,
                               const SlotSet & among, bool whole) const {
        PrefixIndex::Match best;
        for (size_t slot = 0; slot < slots.size(); ++slot) {
            const Held & held = slots[slot];
            if (!among.test(slot) || held.salt != salt) {
                continue;
            }
            Position length = 0;
            const auto held_length = static_cast<Position>(held.tokens.size());
            while (length < std::min(limit, held_length) &&
                   held.tokens[static_cast<size_t>(length)] == tokens[static_cast<size_t>(length)]) {
                ++length;
            }
            if (length == 0 || length < best.length || (whole && length < held_length)) {
                continue;
            }
            if (length > best.length) {
                best = {length, {}};
            }
            best.slots.set(slot);
        }
        return best;
    }

    std::vector<Held> slots = std::vector<Held>(kSlots);
};

// Few tokens, so that texts share, diverge and end within one another.
class Machine {
public:
    explicit Machine(uint32_t seed) : random_(seed), index_(kSlots) {}

    void step() {
        const Slot slot = draw(kSlots);
        switch (draw(6)) {
            case 0:
                return truncate(slot, 0);
            case 1:
                return truncate(slot, draw(index_.length(slot) + 1));
            case 2:
                return swap(slot, draw(kSlots));
            default:
                return extend(slot);
        }
    }

    void check() {
        const std::vector<Token> tokens = text(12);
        const auto               salt   = static_cast<uint64_t>(draw(2));
        const SlotSet            among(static_cast<unsigned long long>(draw(1 << kSlots)));
        const Position           limit  = draw(13);
        const auto               found  = index_.longest(tokens, limit, salt, among);
        const auto               wanted = brute_.longest(tokens, limit, salt, among, false);
        CHECK_EQ(found.length, wanted.length);
        CHECK(found.slots == wanted.slots);
        const auto whole        = index_.longest_whole(tokens, limit, salt, among);
        const auto wanted_whole = brute_.longest(tokens, limit, salt, among, true);
        CHECK_EQ(whole.length, wanted_whole.length);
        CHECK(whole.slots == wanted_whole.slots);
        for (Slot slot = 0; slot < kSlots; ++slot) {
            CHECK(index_.tokens(slot) == brute_.slots[static_cast<size_t>(slot)].tokens);
        }
    }

private:
    int32_t draw(int32_t n) { return std::uniform_int_distribution<int32_t>(0, n - 1)(random_); }

    std::vector<Token> text(int32_t n) {
        std::vector<Token> tokens;
        for (int32_t i = 0; i < n; ++i) {
            tokens.push_back(draw(4) == 0 ? 1 : 0);
        }
        return tokens;
    }

    void truncate(Slot slot, Position n) {
        index_.truncate(slot, n);
        brute_.slots[static_cast<size_t>(slot)].tokens.resize(static_cast<size_t>(n));
    }

    void swap(Slot a, Slot b) {
        index_.swap(a, b);
        std::swap(brute_.slots[static_cast<size_t>(a)], brute_.slots[static_cast<size_t>(b)]);
    }

    void extend(Slot slot) {
        auto & held = brute_.slots[static_cast<size_t>(slot)];
        if (held.tokens.empty()) {
            held.salt = static_cast<uint64_t>(draw(2));
        }
        for (const Token token : text(draw(5))) {
            held.tokens.push_back(token);
        }
        index_.extend(slot, held.tokens, static_cast<Position>(held.tokens.size()), held.salt);
    }

    std::mt19937 random_;
    PrefixIndex  index_;
    BruteForce   brute_;
};

TEST(the_index_finds_what_comparing_with_every_slot_finds) {
    for (uint32_t seed = 0; seed < 40; ++seed) {
        Machine machine(seed);
        for (int i = 0; i < 200; ++i) {
            machine.step();
            machine.check();
        }
    }
}

TEST(a_slot_swapped_with_itself_stays) {
    PrefixIndex index(2);
    index.extend(0, {1, 2, 3}, 3, 0);
    index.swap(0, 0);
    CHECK(index.tokens(0) == (std::vector<Token>{1, 2, 3}));
    CHECK_EQ(index.longest({1, 2, 3}, 3, 0, SlotSet(1)).length, 3);
}

}  // namespace
}  // namespace inferno

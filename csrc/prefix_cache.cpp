#include "prefix_cache.h"

#include <algorithm>
#include <cassert>
#include <utility>

namespace inferno {

namespace {

// Below this a copy costs more than computing the tokens again.
constexpr Position kMinCopy = 64;

Position common_prefix(const std::vector<Token> & a, const std::vector<Token> & b) {
    const size_t n    = std::min(a.size(), b.size());
    const auto   last = std::mismatch(a.begin(), a.begin() + static_cast<std::ptrdiff_t>(n), b.begin());
    return static_cast<Position>(last.first - a.begin());
}

}  // namespace

PrefixCache::PrefixCache(int32_t n_slots, bool enabled, bool can_trim)
    : slots_(static_cast<size_t>(n_slots)), enabled_(enabled), can_trim_(can_trim) {}

PrefixCache::Match PrefixCache::longest_match(const std::vector<Token> & tokens, uint64_t salt,
                                              bool idle_only) const {
    const Position limit = static_cast<Position>(tokens.size()) - 1;
    Match          best;
    for (size_t i = 0; i < slots_.size(); ++i) {
        const Holding & holding = slots_[i];
        if (holding.salt != salt || (idle_only && holding.busy)) {
            continue;
        }
        const Position length = std::min(common_prefix(holding.tokens, tokens), limit);
        const bool     usable = can_trim_ || length == static_cast<Position>(holding.tokens.size());
        if (usable && length > best.length) {
            best = {static_cast<Slot>(i), length};
        }
    }
    return best;
}

Slot PrefixCache::victim() const {
    Slot best = -1;
    for (size_t i = 0; i < slots_.size(); ++i) {
        if (slots_[i].busy) {
            continue;
        }
        if (slots_[i].tokens.empty()) {
            return static_cast<Slot>(i);
        }
        if (best < 0 || slots_[i].last_use < slots_[index(best)].last_use) {
            best = static_cast<Slot>(i);
        }
    }
    return best;
}

// A slot is continued where it stands when most of it is kept; otherwise its owner would lose a long text for
// a short shared head, and a copy into another slot is better.
bool PrefixCache::worth_in_place(const Match & match) const {
    return 2 * static_cast<size_t>(match.length) >= slots_[index(match.slot)].tokens.size();
}

Placement PrefixCache::take(Slot slot, Position n_cached, std::vector<CacheEdit> edits) {
    Holding & holding = slots_[index(slot)];
    holding.busy      = true;
    holding.last_use  = ++tick_;
    return {slot, n_cached, std::move(edits)};
}

std::optional<Placement> PrefixCache::acquire(const std::vector<Token> & tokens, uint64_t salt) {
    const Slot fallback = victim();
    if (fallback < 0) {
        return std::nullopt;
    }
    if (enabled_) {
        const Match idle = longest_match(tokens, salt, true);
        if (idle.length > 0 && (worth_in_place(idle) || fallback == idle.slot)) {
            slots_[index(idle.slot)].tokens.resize(static_cast<size_t>(idle.length));
            return take(idle.slot, idle.length, {{CacheEdit::Kind::trim, idle.slot, idle.length}});
        }
        const Match any = longest_match(tokens, salt, false);
        if (can_trim_ && any.length >= kMinCopy && any.slot != fallback) {
            Holding & target = slots_[index(fallback)];
            target.tokens.assign(tokens.begin(), tokens.begin() + any.length);
            target.salt = salt;
            return take(fallback, any.length, {{CacheEdit::Kind::copy, fallback, any.length, any.slot}});
        }
    }
    slots_[index(fallback)].tokens.clear();
    return take(fallback, 0, {{CacheEdit::Kind::trim, fallback, 0}});
}

std::optional<Placement> PrefixCache::acquire_empty() {
    const Slot slot = victim();
    if (slot < 0) {
        return std::nullopt;
    }
    slots_[index(slot)].tokens.clear();
    return take(slot, 0, {{CacheEdit::Kind::trim, slot, 0}});
}

void PrefixCache::publish(Slot slot, const std::vector<Token> & tokens, Position n, uint64_t salt) {
    Holding & holding = slots_[index(slot)];
    assert(holding.busy);
    holding.tokens.assign(tokens.begin(), tokens.begin() + n);
    holding.salt = salt;
}

void PrefixCache::release(Slot slot) {
    Holding & holding = slots_[index(slot)];
    assert(holding.busy);
    holding.busy     = false;
    holding.last_use = ++tick_;
}

void PrefixCache::discard(Slot slot) {
    release(slot);
    slots_[index(slot)].tokens.clear();
}

void PrefixCache::swap(Slot a, Slot b) {
    std::swap(slots_[index(a)], slots_[index(b)]);
}

std::vector<CacheEdit> PrefixCache::evict_idle() {
    std::vector<CacheEdit> edits;
    for (size_t i = 0; i < slots_.size(); ++i) {
        if (!slots_[i].busy && !slots_[i].tokens.empty()) {
            slots_[i].tokens.clear();
            edits.push_back({CacheEdit::Kind::trim, static_cast<Slot>(i), 0});
        }
    }
    return edits;
}

bool PrefixCache::has_free_slot() const {
    return std::any_of(slots_.begin(), slots_.end(), [](const Holding & holding) { return !holding.busy; });
}

int64_t PrefixCache::cached_tokens() const {
    int64_t total = 0;
    for (const Holding & holding : slots_) {
        total += holding.busy ? 0 : static_cast<int64_t>(holding.tokens.size());
    }
    return total;
}

}  // namespace inferno

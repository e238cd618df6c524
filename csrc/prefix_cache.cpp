#include "prefix_cache.h"

#include <algorithm>
#include <cassert>
#include <utility>

namespace inferno {

namespace {

// Below this a copy gains nothing to speak of: it takes a twentieth of a millisecond, and so few more rows hardly show.
constexpr Position kMinCopy = 16;

Position limit_of(const std::vector<Token> & tokens) {
    return static_cast<Position>(tokens.size()) - 1;
}

}  // namespace

PrefixCache::PrefixCache(const PrefixCacheOptions & options)
    : enabled_(options.enabled), can_trim_(options.can_trim),
      store_(can_copy() ? options.store_bytes : 0, options.token_bytes), held_(options.n_slots),
      promised_(options.n_slots), last_use_(static_cast<size_t>(options.n_slots)) {
    for (Slot slot = 0; slot < options.n_slots; ++slot) {
        all_.set(index(slot));
    }
}

Slot PrefixCache::victim() const {
    Slot best = -1;
    for (size_t i = 0; i < last_use_.size(); ++i) {
        const Slot slot = static_cast<Slot>(i);
        if (busy(slot)) {
            continue;
        }
        if (held_.length(slot) == 0) {
            return slot;
        }
        if (best < 0 || last_use_[i] < last_use_[index(best)]) {
            best = slot;
        }
    }
    return best;
}

// Of the idle slots that begin with most of the prompt, the one that loses least.
PrefixCache::Match PrefixCache::idle_match(const std::vector<Token> & tokens, uint64_t salt) const {
    const auto found = can_trim_ ? held_.longest(tokens, limit_of(tokens), salt, idle())
                                 : held_.longest_whole(tokens, limit_of(tokens), salt, idle());
    Match      best{-1, found.length};
    for (size_t i = 0; i < last_use_.size(); ++i) {
        const Slot slot = static_cast<Slot>(i);
        if (found.slots.test(i) && (best.slot < 0 || held_.length(slot) < held_.length(best.slot))) {
            best.slot = slot;
        }
    }
    return best;
}

PrefixCache::Match PrefixCache::copy_match(const std::vector<Token> & tokens, uint64_t salt, Slot target) const {
    if (!can_copy()) {
        return {};
    }
    SlotSet others = all_;
    others.reset(index(target));
    const auto found = held_.longest(tokens, limit_of(tokens), salt, others);
    return found.length < kMinCopy ? Match{} : Match{first_slot(found.slots), found.length};
}

// A slot is continued where it stands when most of it is kept; otherwise its owner would lose a long text for
// a short shared head, and a copy into another slot is better.
bool PrefixCache::worth_in_place(const Match & match) const {
    return 2 * match.length >= held_.length(match.slot);
}

Placement PrefixCache::take(Slot slot, Position n_cached, std::vector<CacheEdit> edits) {
    busy_.set(index(slot));
    last_use_[index(slot)] = ++tick_;
    return {slot, n_cached, std::move(edits)};
}

void PrefixCache::overwrite(Slot slot, Position keep, std::vector<CacheEdit> & edits) {
    if (store_.on() && held_.length(slot) - keep >= kBlockTokens) {
        auto missing = store_.add(held_.tokens(slot), held_.length(slot), held_.salt(slot));
        if (!missing.blocks.empty()) {
            edits.push_back({CacheEdit::Kind::stash, slot, missing.from, -1, std::move(missing.blocks)});
        }
    }
    held_.truncate(slot, keep);
}

std::optional<Placement> PrefixCache::acquire(const std::vector<Token> & tokens, uint64_t salt) {
    const Slot target = victim();
    if (target < 0) {
        return std::nullopt;
    }
    std::vector<CacheEdit> edits;
    const Match            idle   = enabled_ ? idle_match(tokens, salt) : Match{};
    const Match            copy   = copy_match(tokens, salt, target);
    const Position         stored = store_.longest(tokens, limit_of(tokens), salt);
    const Position         moved  = std::max(copy.length, stored);
    if (idle.length > 0 && idle.length + kMinCopy > moved && (worth_in_place(idle) || target == idle.slot)) {
        overwrite(idle.slot, idle.length, edits);
        edits.push_back({CacheEdit::Kind::trim, idle.slot, idle.length});
        return take(idle.slot, idle.length, std::move(edits));
    }
    if (stored > copy.length) {
        auto blocks = store_.fetch(tokens, stored, salt);
        overwrite(target, 0, edits);
        edits.push_back({CacheEdit::Kind::fetch, target, 0, -1, std::move(blocks)});
        fetched_tokens_ += static_cast<uint64_t>(stored);
    } else if (copy.length > 0) {
        last_use_[index(copy.slot)] = ++tick_;
        overwrite(target, 0, edits);
        edits.push_back({CacheEdit::Kind::copy, target, copy.length, copy.slot});
    } else {
        overwrite(target, 0, edits);
        edits.push_back({CacheEdit::Kind::trim, target, 0});
    }
    held_.extend(target, tokens, moved, salt);
    return take(target, moved, std::move(edits));
}

std::optional<Placement> PrefixCache::acquire_empty() {
    const Slot slot = victim();
    if (slot < 0) {
        return std::nullopt;
    }
    std::vector<CacheEdit> edits;
    overwrite(slot, 0, edits);
    edits.push_back({CacheEdit::Kind::trim, slot, 0});
    return take(slot, 0, std::move(edits));
}

void PrefixCache::publish(Slot slot, const std::vector<Token> & tokens, Position n, uint64_t salt) {
    assert(busy(slot));
    held_.extend(slot, tokens, n, salt);
    if (n >= promised_.length(slot)) {
        promised_.truncate(slot, 0);
    }
}

Position PrefixCache::available(const std::vector<Token> & tokens, uint64_t salt) const {
    return std::max(held_.longest(tokens, limit_of(tokens), salt, all_).length,
                    store_.longest(tokens, limit_of(tokens), salt));
}

void PrefixCache::promise(Slot slot, const std::vector<Token> & tokens, uint64_t salt) {
    if (can_copy()) {
        promised_.extend(slot, tokens, static_cast<Position>(tokens.size()), salt);
    }
}

PrefixIndex::Match PrefixCache::promised(const std::vector<Token> & tokens, uint64_t salt) const {
    return promised_.longest(tokens, limit_of(tokens), salt, all_);
}

void PrefixCache::release(Slot slot) {
    assert(busy(slot));
    promised_.truncate(slot, 0);
    busy_.reset(index(slot));
    last_use_[index(slot)] = ++tick_;
}

void PrefixCache::discard(Slot slot) {
    release(slot);
    held_.truncate(slot, 0);
}

void PrefixCache::swap(Slot a, Slot b) {
    held_.swap(a, b);
    promised_.swap(a, b);
    std::swap(last_use_[index(a)], last_use_[index(b)]);
    const bool busy_a = busy(a);
    busy_.set(index(a), busy(b));
    busy_.set(index(b), busy_a);
}

std::vector<CacheEdit> PrefixCache::evict_idle() {
    std::vector<CacheEdit> edits;
    for (size_t i = 0; i < last_use_.size(); ++i) {
        const Slot slot = static_cast<Slot>(i);
        if (!busy(slot) && held_.length(slot) > 0) {
            overwrite(slot, 0, edits);
            edits.push_back({CacheEdit::Kind::trim, slot, 0});
        }
    }
    return edits;
}

std::vector<CacheEdit> PrefixCache::forget_idle() {
    store_.clear();
    std::vector<CacheEdit> edits;
    for (size_t i = 0; i < last_use_.size(); ++i) {
        const Slot slot = static_cast<Slot>(i);
        if (!busy(slot)) {
            held_.truncate(slot, 0);
            edits.push_back({CacheEdit::Kind::trim, slot, 0});
        }
    }
    return edits;
}

int64_t PrefixCache::cached_tokens() const {
    int64_t total = 0;
    for (size_t i = 0; i < last_use_.size(); ++i) {
        total += busy_.test(i) ? 0 : held_.length(static_cast<Slot>(i));
    }
    return total;
}

}  // namespace inferno

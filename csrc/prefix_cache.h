// Who holds which tokens in which KV slot, and where a prompt should go so that least of it is computed again.
//
// Pure bookkeeping: it answers with edits for the model to carry out and touches no memory but its own. A slot keeps
// its tokens after its sequence has finished, until another sequence needs the slot.
//
// Slots are single-owner copies: a prefix is reused in place when an idle slot holds it, and copied when the holder
// is running or would lose more than it gives.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "batch.h"

namespace inferno {

struct Placement {
    Slot                   slot;
    Position               n_cached;  // tokens of the prompt that `slot` holds after the edits
    std::vector<CacheEdit> edits;
};

class PrefixCache {
public:
    // `can_trim` false (recurrent models): only a whole slot's content can be continued.
    PrefixCache(int32_t n_slots, bool enabled, bool can_trim);

    // Takes a slot for `tokens`, or nothing when all are busy. At least the last token is left to compute.
    std::optional<Placement> acquire(const std::vector<Token> & tokens, uint64_t salt);
    // Takes an empty (or emptied) slot for a sequence whose state is restored from elsewhere.
    std::optional<Placement> acquire_empty();

    // The first `n` of `tokens` are now computed in `slot`, so that others may copy them. REQUIRES: slot is busy.
    void publish(Slot slot, const std::vector<Token> & tokens, Position n, uint64_t salt);
    // Gives the slot back; it keeps what was published last.
    void release(Slot slot);
    // Gives the slot back empty. The caller trims it.
    void discard(Slot slot);
    // The model has exchanged the contents of two slots.
    void swap(Slot a, Slot b);

    // Empties every idle slot; returns the edits.
    std::vector<CacheEdit> evict_idle();

    bool    busy(Slot slot) const { return slots_[index(slot)].busy; }
    bool    empty(Slot slot) const { return slots_[index(slot)].tokens.empty(); }
    bool    has_free_slot() const;
    int64_t cached_tokens() const;  // held by idle slots

private:
    struct Holding {
        bool               busy = false;
        std::vector<Token> tokens;  // known to be computed in this slot
        uint64_t           salt     = 0;
        uint64_t           last_use = 0;
    };
    struct Match {
        Slot     slot   = -1;
        Position length = 0;
    };

    static size_t index(Slot slot) { return static_cast<size_t>(slot); }
    Match         longest_match(const std::vector<Token> & tokens, uint64_t salt, bool idle_only) const;
    Slot          victim() const;  // the idle slot to give up: an empty one, else the least recently used
    Placement     take(Slot slot, Position n_cached, std::vector<CacheEdit> edits);
    bool          worth_in_place(const Match & match) const;

    std::vector<Holding> slots_;
    bool                 enabled_;
    bool                 can_trim_;
    uint64_t             tick_ = 0;
};

}  // namespace inferno

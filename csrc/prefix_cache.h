// Who holds which tokens in which KV slot, and where a prompt should go so that least of it is computed again.
//
// Pure bookkeeping: it answers with edits for the model to carry out and touches no memory but its own. A slot keeps
// its tokens after its sequence has finished, until another sequence needs the slot; what is overwritten then goes to a
// store in host memory, not before.
//
// Slots are single-owner copies: a prefix is reused in place when an idle slot holds it, and copied when the holder
// is running or would lose more than it gives, or when it is only in the store.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "batch.h"
#include "prefix_index.h"
#include "prefix_store.h"

namespace inferno {

struct Placement {
    Slot                   slot;
    Position               n_cached;  // tokens of the prompt that `slot` holds after the edits
    std::vector<CacheEdit> edits;
};

struct PrefixCacheOptions {
    int32_t n_slots;
    bool    enabled;
    bool    can_trim;         // false (recurrent models): only a whole slot's content can be continued
    size_t  store_bytes = 0;  // at most this much outside the slots
    size_t  token_bytes = 0;  // that a token takes there; 0: nothing can be put there
};

class PrefixCache {
public:
    explicit PrefixCache(const PrefixCacheOptions & options);

    // Takes a slot for `tokens`, or nothing when all are busy. At least the last token is left to compute.
    std::optional<Placement> acquire(const std::vector<Token> & tokens, uint64_t salt);
    // Takes an empty (or emptied) slot for a sequence whose state is restored from elsewhere.
    std::optional<Placement> acquire_empty();

    // The first `n` of `tokens` are now computed in `slot`, so that others may copy them. REQUIRES: slot is busy; what
    // was published of it before is the beginning of that.
    void publish(Slot slot, const std::vector<Token> & tokens, Position n, uint64_t salt);
    // How many of `tokens` acquire() would find computed if there were a free slot.
    Position available(const std::vector<Token> & tokens, uint64_t salt) const;

    // `slot` is going to compute `tokens`, until it is given back or publishes all of them.
    void promise(Slot slot, const std::vector<Token> & tokens, uint64_t salt);
    // The most of `tokens` that slots have promised; nothing when it could not be copied from them.
    PrefixIndex::Match promised(const std::vector<Token> & tokens, uint64_t salt) const;

    // Gives the slot back; it keeps what was published.
    void release(Slot slot);
    // Gives the slot back empty. The caller trims it.
    void discard(Slot slot);
    // The model has exchanged the contents of two slots.
    void swap(Slot a, Slot b);

    // Empties every idle slot, into the store; returns the edits.
    std::vector<CacheEdit> evict_idle();
    // The same when nobody knows what is in the slots, and in blocks that were to be filled.
    std::vector<CacheEdit> forget_idle();

    // What was kept when an engine ended, and what is kept now. REQUIRES of a change: nothing has been in a slot yet.
    PrefixStore &       store() { return store_; }
    const PrefixStore & store() const { return store_; }

    bool    busy(Slot slot) const { return busy_.test(index(slot)); }
    bool    has_free_slot() const { return idle().any(); }
    int64_t  cached_tokens() const;  // held by idle slots
    size_t   stored_bytes() const { return store_.bytes(); }
    uint64_t fetched_tokens() const { return fetched_tokens_; }

private:
    struct Match {
        Slot     slot   = -1;
        Position length = 0;
    };

    static size_t index(Slot slot) { return static_cast<size_t>(slot); }
    SlotSet       idle() const { return all_ & ~busy_; }
    Slot          victim() const;  // the idle slot to give up: an empty one, else the least recently used
    Match         idle_match(const std::vector<Token> & tokens, uint64_t salt) const;
    Match         copy_match(const std::vector<Token> & tokens, uint64_t salt, Slot target) const;
    bool          can_copy() const { return enabled_ && can_trim_; }
    // Forgets what a slot holds beyond `keep`, into the store.
    void          overwrite(Slot slot, Position keep, std::vector<CacheEdit> & edits);
    Placement     take(Slot slot, Position n_cached, std::vector<CacheEdit> edits);
    bool          worth_in_place(const Match & match) const;

    const bool            enabled_;
    const bool            can_trim_;
    PrefixStore           store_;
    PrefixIndex           held_;
    PrefixIndex           promised_;
    SlotSet               all_;
    SlotSet               busy_;
    std::vector<uint64_t> last_use_;
    uint64_t              tick_           = 0;
    uint64_t              fetched_tokens_ = 0;
};

}  // namespace inferno

// What the slots of a llama.cpp context hold, moved about: between slots, out of them and back.
//
// llama.cpp's own calls move a whole slot through a buffer. Where a token's keys and values are one row in each of some
// plain tensors, this room moves rows, only those it is asked for, from tensor to tensor. How a slot's state is written
// it learns from llama.cpp when it is made, and proves there that rows it has moved read the same as whole states do; when
// they do not, or when a cache is of another kind, it moves whole states.
#pragma once

#include <llama.h>

#include <memory>
#include <vector>

#include "batch.h"

namespace inferno {

class KvState {
public:
    // Computes three tokens and forgets them again. `by_rows` false moves whole states in any case.
    explicit KvState(llama_context * context, bool by_rows = true);
    ~KvState();
    KvState(const KvState &)             = delete;
    KvState & operator=(const KvState &) = delete;

    // False when an edit failed: what the slots it names hold is unknown, and later edits are not done.
    bool apply(const std::vector<CacheEdit> & edits);

    // After a batch that was not computed to its end, in which `slot` had rows: what is computed next lies behind what
    // the slot holds.
    void find_end(Slot slot);

    bool by_rows() const { return !caches_.empty(); }
    // What a token's rows take; 0 unless they can be moved.
    size_t token_bytes() const;

private:
    class Cache;

    bool     learn();
    bool     proves_itself();
    bool     apply(const CacheEdit & edit);
    bool     trim(Slot slot, Position from);
    Position length(Slot slot) const;
    // Rows are there and lie in the order of their positions.
    bool     in_rows(Slot slot, Position n) const;

    bool copy(Slot source, Slot target, Position n);
    bool swap(Slot a, Slot b);
    bool adopt(Slot slot, Position n);

    SavedState save(Slot slot) const;
    bool       restore(Slot slot, const SavedState & state);
    bool       stash(const CacheEdit & edit) const;
    bool       fetch(Slot slot, const std::vector<std::shared_ptr<SavedState>> & states);

    void get_rows(Slot slot, Position from, Position n, SavedState & state) const;
    bool set_rows(Slot slot, const std::vector<const SavedState *> & states);

    SavedState save_whole(Slot slot) const;
    bool       restore_whole(Slot slot, const SavedState & state);

    llama_context * const               context_;
    std::vector<std::unique_ptr<Cache>> caches_;  // of rows; more than one with sliding windows
};

}  // namespace inferno

// What runs in one step, and the KV-cache edits that go before it. Made by the scheduler, eaten by the model; a value.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "params.h"

namespace inferno {

using Slot     = int32_t;  // one KV sequence, 0 .. parallel-1
using Position = int32_t;  // index of a token in its sequence

// The KV state of a slot, kept outside it; only the model that made it knows what is in it.
struct SavedState {
    std::unique_ptr<uint8_t[]> bytes;
    size_t                     size   = 0;  // 0: nothing
    Position                   n_rows = 0;  // tokens in it when it is their rows, 0 when it is a whole state

    // Not set to zero, unlike a vector.
    void allocate(size_t n) {
        if (n != size) {
            bytes.reset(new uint8_t[n]);
            size = n;
        }
    }
};

inline constexpr Position kBlockTokens = 64;

// Edits act on whole slots or on a slot's tail, which every KV layout can do; on rows only where Model::token_bytes()
// says what they take.
struct CacheEdit {
    enum class Kind {
        trim,     // forget the positions >= from of `slot`; from 0 empties it
        copy,     // make `slot` hold the positions < from of `source`
        swap,     // exchange what `slot` and `source` hold
        save,     // put the state of `slot` into states[0]; it stays empty when that fails
        restore,  // make `slot` hold states[0]
        stash,    // put the rows of `slot` from `from` on into `states`, kBlockTokens each
        fetch,    // make `slot` hold the rows of `states`, one after the other
    };
    Kind                                     kind;
    Slot                                     slot;
    Position                                 from   = 0;
    Slot                                     source = -1;
    std::vector<std::shared_ptr<SavedState>> states = {};
};

struct BatchRow {
    Slot     slot;
    Position position;
    Token    token;
    bool     want_logits;
};

struct Batch {
    std::vector<CacheEdit> edits;  // applied in order, before the rows
    std::vector<BatchRow>  rows;   // rows of one slot are contiguous, in position order; slots ascend
};

}  // namespace inferno

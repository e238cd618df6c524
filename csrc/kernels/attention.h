// Attention of a few query rows over one head's keys and values, for one kind of processor.
//
// The softmax is computed online over blocks of cells (Milakov and Gimelshein, "Online normalizer calculation for
// softmax", 2018; Dao et al., "FlashAttention", 2022), all of it in single precision. Query heads that share a key head
// are rows of the same tile, so that keys and values are converted from half precision once for all of them.
#pragma once

#include <cstddef>
#include <cstdint>

namespace inferno::kernels {

inline constexpr int64_t kMaxQueryRows = 48;
inline constexpr int64_t kMaxHeadSize  = 256;
inline constexpr int64_t kHeadSizeStep = 16;  // head sizes are multiples of this

// One tile: row = position * heads + head.
struct Queries {
    const char * data;
    size_t       position_stride;  // bytes
    size_t       head_stride;
    int64_t      positions;
    int64_t      heads;
    int64_t      head_size;
    float        scale;

    int64_t rows() const { return positions * heads; }
};

// Cells [begin, end) of one key head.
struct Cells {
    const char * keys;  // half precision
    const char * values;
    size_t       key_stride;  // bytes from cell to cell
    size_t       value_stride;
    const char * mask;  // half precision, added to the scores; null for none
    size_t       mask_stride;  // bytes from position to position
    int64_t      begin;
    int64_t      end;
};

// What has been attended to: maximum score, sum of exponentials and weighted values of each row. Owned by the caller.
struct Attended {
    float * maxima;  // rows
    float * sums;    // rows
    float * values;  // rows x head size
};

struct AttentionKernel {
    const char * name;
    // Sets `result` from nothing. `scratch` has scratch_floats() of the head size.
    void (*attend)(const Queries & queries, const Cells & cells, const Attended & result, float * scratch);
};

// Queries, keys (transposed), values and scores.
constexpr size_t scratch_floats(int64_t head_size) {
    return static_cast<size_t>(kMaxQueryRows * (head_size + 64) + 2 * 64 * head_size);
}

// Null where this processor has none.
const AttentionKernel * attention_kernel();

}  // namespace inferno::kernels

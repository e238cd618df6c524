// Matrix products of packed weights with activations, for one kind of processor.
//
// Arithmetic is ggml's: activations are quantized to 8 bits in the blocks that the weights' format asks for, products
// of blocks are exact integers, and they are scaled and added up in single precision. Only the order of the additions
// differs.
//
// Activations are quantized into tiles of up to kMaxTileRows rows. A tile of R rows holds, for each block of the
// weights' columns (16 or 32): R x block quants, R scales (float), and R sums: of formats with minima the scaled sum of
// the quants (float), of the others minus the zero point times their sum (int32).
#pragma once

#include <cstdint>
#include <vector>

#include "packed_weights.h"

namespace inferno::kernels {

inline constexpr int     kMaxTileRows  = 12;
inline constexpr int64_t kPanelsAtOnce = 2;

constexpr size_t tile_bytes(const Format & format, int64_t rows, int64_t columns) {
    return static_cast<size_t>(rows * (columns / format.block()) * (format.block() + 8));
}

struct Kernels {
    const char * name;
    // Quantizes `rows` activation rows of `columns` floats into one tile.
    void (*quantize)(const Format & format, const float * const * rows, int n_rows, int64_t columns, uint8_t * tile);
    // Columns [0, n) of the output of kPanelsAtOnce panels for a tile: output[r * stride + i] for r < n_rows, i < n. Of 16
    // columns or fewer only the first panel is there.
    // `prefetch` says that the panels are not in the caches yet, and that those behind them will be needed next.
    void (*multiply)(const Format & format, const uint8_t * panels, const uint8_t * tile, int n_rows, int64_t columns,
                     float * output, int64_t stride, int n, bool prefetch);
    bool (*supports)(const Format & format);
};

// The best that this processor has, or null.
const Kernels * best_kernels();
// All that this processor can run, best first; for tests.
std::vector<const Kernels *> usable_kernels();

}  // namespace inferno::kernels

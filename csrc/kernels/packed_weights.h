// Quantized weight matrices in the layout that our CPU kernels read: panels of 16 rows, side by side.
//
// A panel holds, for every block of 32 columns, the quants of its 16 rows interleaved in groups of 4 columns (the unit
// of a dot-product instruction: 16 rows x 4 columns fill one 512-bit register), and after all quants the scales. Rows
// that fill up the last panel are zero. Quants are unsigned; a format has either a zero point, subtracted from each, or
// a minimum per block.
//
// Layout of the quants of one block of 32 columns, for row r of the panel:
//   4 bits: byte 64*g + 4*r + i  holds column 4*g + i in its low half and column 16 + 4*g + i in its high half, g < 4
//   8 bits: byte 64*g + 4*r + i  holds column 4*g + i, g < 8
#pragma once

#include <cstddef>
#include <cstdint>

namespace inferno::kernels {

inline constexpr int64_t kPanelRows = 16;
inline constexpr int64_t kBlock     = 32;  // columns that share a scale

// How a kernel reads a panel.
struct Format {
    int     bits;        // 4 or 8
    bool    has_min;     // scales are pairs: 16 deltas, then 16 minima
    int32_t zero_point;  // without minima

    constexpr size_t quant_bytes() const { return static_cast<size_t>(kPanelRows * kBlock * bits / 8); }
    constexpr size_t scale_bytes() const { return static_cast<size_t>(kPanelRows) * 2 * (has_min ? 2 : 1); }
    constexpr size_t panel_bytes(int64_t columns) const {
        return static_cast<size_t>(columns / kBlock) * (quant_bytes() + scale_bytes());
    }
    constexpr size_t bytes(int64_t rows, int64_t columns) const {
        return static_cast<size_t>((rows + kPanelRows - 1) / kPanelRows) * panel_bytes(columns);
    }
};

inline constexpr Format kQ4_0{4, false, 8};
inline constexpr Format kQ4_1{4, true, 0};
inline constexpr Format kQ8_0{8, false, 128};

// `source`: rows of ggml's blocks, one after another. `panels`: format.bytes(rows, columns), aligned to 64 bytes.
// REQUIRES: columns is a multiple of 32.
void pack_q4_0(const void * source, int64_t rows, int64_t columns, uint8_t * panels);
void pack_q4_1(const void * source, int64_t rows, int64_t columns, uint8_t * panels);
void pack_q8_0(const void * source, int64_t rows, int64_t columns, uint8_t * panels);

}  // namespace inferno::kernels

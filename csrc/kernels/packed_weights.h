// Quantized weight matrices in the layout that our CPU kernels read: panels of 16 rows, side by side.
//
// A panel holds the quants of its 16 rows for each unit of 32 columns, interleaved in groups of 4 columns (what a
// dot-product instruction takes: 16 rows x 4 columns fill one 512-bit register); behind all quants the scales of the
// units, behind those the scales of the super-blocks of 256 columns, where the format has them. Rows that fill up the
// last panel are zero. Quants are unsigned; a format has either a zero point, subtracted from each, or minima.
//
// The quants of a unit, for row r of the panel, group g of its 8 groups of columns (g: columns 4*g .. 4*g + 3), i < 4:
//   8 bits       byte 64*g + 4*r + i
//   low 4 bits   byte 64*(g % 4) + 4*r + i: its lower half for g < 4, its upper half for the others
//   high 2 bits  behind them, byte 64*(g / 4) + 4*r + i, bits 2*(g % 4) and up
//   high bit     behind them, byte 4*r + i, bit g
#pragma once

#include <cstddef>
#include <cstdint>

namespace inferno::kernels {

inline constexpr int64_t kPanelRows = 16;
inline constexpr int64_t kUnit      = 32;
inline constexpr int64_t kSuper     = 256;

enum class Scales {
    half,      // one half-precision scale for each row
    half_min,  // 16 scales, then 16 minima, half precision
    byte,      // signed bytes, one for each 16 columns, times the super-block's half-precision scale
    byte_min,  // 16 scales, then 16 minima, unsigned bytes, times the super-block's two half-precision scales
};

// How a kernel reads a panel, and what activations are quantized to beside it.
struct Format {
    int     low_bits;   // 4 or 8
    int     high_bits;  // 0, 1 or 2, beside 4 low ones
    Scales  scales;
    int32_t zero_point;  // without minima

    constexpr bool    has_min() const { return scales == Scales::half_min || scales == Scales::byte_min; }
    constexpr bool    has_supers() const { return scales == Scales::byte || scales == Scales::byte_min; }
    // Columns that share a scale, of the weights and of the activations.
    constexpr int64_t block() const { return scales == Scales::byte ? 16 : 32; }
    constexpr int64_t activation_block() const { return has_supers() ? kSuper : kUnit; }

    constexpr size_t quant_bytes() const { return static_cast<size_t>(kPanelRows * kUnit * (low_bits + high_bits) / 8); }
    constexpr size_t scale_bytes() const { return static_cast<size_t>(kPanelRows) * (scales == Scales::half_min ? 4 : 2); }
    constexpr size_t super_bytes() const {
        return has_supers() ? static_cast<size_t>(kPanelRows) * (has_min() ? 4 : 2) : 0;
    }
    constexpr size_t panel_bytes(int64_t columns) const {
        return static_cast<size_t>(columns / kUnit) * (quant_bytes() + scale_bytes()) +
               static_cast<size_t>(columns / kSuper) * super_bytes();
    }
    constexpr size_t bytes(int64_t rows, int64_t columns) const {
        return static_cast<size_t>((rows + kPanelRows - 1) / kPanelRows) * panel_bytes(columns);
    }
};

inline constexpr Format kQ4_0{4, 0, Scales::half, 8};
inline constexpr Format kQ4_1{4, 0, Scales::half_min, 0};
inline constexpr Format kQ5_0{4, 1, Scales::half, 16};
inline constexpr Format kQ5_1{4, 1, Scales::half_min, 0};
inline constexpr Format kQ8_0{8, 0, Scales::half, 128};
inline constexpr Format kQ4_K{4, 0, Scales::byte_min, 0};
inline constexpr Format kQ5_K{4, 1, Scales::byte_min, 0};
inline constexpr Format kQ6_K{4, 2, Scales::byte, 32};

struct Packing {
    int    type;  // of ggml
    Format format;
    // `source`: rows of ggml's blocks, one after another. `panels`: format.bytes(rows, columns), aligned to 64 bytes.
    // REQUIRES: columns is a multiple of format.activation_block().
    void (*pack)(const void * source, int64_t rows, int64_t columns, uint8_t * panels);
};

// Null for a type that has no packing.
const Packing * packing_of_type(int type);

// Row `row` of packed weights as `columns` floats: what ggml makes of the blocks that were packed.
void unpack_row(const Format & format, const uint8_t * panels, int64_t row, int64_t columns, float * output);

}  // namespace inferno::kernels

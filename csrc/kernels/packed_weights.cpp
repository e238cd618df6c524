#include "packed_weights.h"

#define GGML_COMMON_DECL_C
#include <ggml-common.h>

#include <cstring>

namespace inferno::kernels {

namespace {

constexpr size_t kGroup = 64;  // bytes of 16 rows x 4 quants (8 bits) or 16 rows x 8 quants (4 bits)

// ggml's nibble blocks have column j beside column 16 + j, as a panel has them: groups of four bytes move as they are.
void put_group(uint8_t * quants, int64_t row, size_t group, uint32_t four) {
    std::memcpy(quants + kGroup * group + 4 * static_cast<size_t>(row), &four, sizeof four);
}

uint32_t four_at(const void * bytes, size_t group) {
    uint32_t four;
    std::memcpy(&four, static_cast<const uint8_t *>(bytes) + 4 * group, sizeof four);
    return four;
}

void put_scale(uint8_t * scales, int64_t index, ggml_half value) {
    std::memcpy(scales + 2 * index, &value, sizeof value);
}

void put_nibbles(const uint8_t * nibbles, uint8_t * quants, int64_t row) {
    for (size_t group = 0; group < 4; ++group) {
        put_group(quants, row, group, four_at(nibbles, group));
    }
}

// Calls place(block of the row, quants of the panel's block, scales of the panel's block, row in the panel).
template <class Block, class Place>
void pack(const Format & format, const void * source, int64_t rows, int64_t columns, uint8_t * panels, Place place) {
    const int64_t n_blocks = columns / kBlock;
    std::memset(panels, 0, format.bytes(rows, columns));
    for (int64_t row = 0; row < rows; ++row) {
        uint8_t *     quants = panels + static_cast<size_t>(row / kPanelRows) * format.panel_bytes(columns);
        uint8_t *     scales = quants + static_cast<size_t>(n_blocks) * format.quant_bytes();
        const Block * blocks = static_cast<const Block *>(source) + row * n_blocks;
        for (int64_t i = 0; i < n_blocks; ++i) {
            place(blocks[i], quants, scales, row % kPanelRows);
            quants += format.quant_bytes();
            scales += format.scale_bytes();
        }
    }
}

}  // namespace

void pack_q4_0(const void * source, int64_t rows, int64_t columns, uint8_t * panels) {
    pack<block_q4_0>(kQ4_0, source, rows, columns, panels,
                     [](const block_q4_0 & block, uint8_t * quants, uint8_t * scales, int64_t row) {
                         put_nibbles(block.qs, quants, row);
                         put_scale(scales, row, block.d);
                     });
}

void pack_q4_1(const void * source, int64_t rows, int64_t columns, uint8_t * panels) {
    pack<block_q4_1>(kQ4_1, source, rows, columns, panels,
                     [](const block_q4_1 & block, uint8_t * quants, uint8_t * scales, int64_t row) {
                         put_nibbles(block.qs, quants, row);
                         put_scale(scales, row, block.d);
                         put_scale(scales, kPanelRows + row, block.m);
                     });
}

void pack_q8_0(const void * source, int64_t rows, int64_t columns, uint8_t * panels) {
    pack<block_q8_0>(kQ8_0, source, rows, columns, panels,
                     [](const block_q8_0 & block, uint8_t * quants, uint8_t * scales, int64_t row) {
                         for (size_t group = 0; group < 8; ++group) {
                             put_group(quants, row, group, four_at(block.qs, group) ^ 0x80808080u);  // + 128
                         }
                         put_scale(scales, row, block.d);
                     });
}

}  // namespace inferno::kernels

#include "packed_weights.h"

#define GGML_COMMON_DECL_C
#include <ggml-common.h>
#include <ggml.h>

#include <cstring>

namespace inferno::kernels {

namespace {

// Where the parts of one panel's unit are, for one of its rows.
template <class Byte>
struct PlaceOf {
    Byte * quants;
    Byte * scales;
    Byte * supers;  // of the unit's super-block
    size_t row;
};
using Place     = PlaceOf<uint8_t>;
using ReadPlace = PlaceOf<const uint8_t>;

void put_quants(const Format & format, const uint8_t (&unit)[kUnit], const Place & place) {
    uint8_t * quants = place.quants + 4 * place.row;
    for (size_t column = 0; column < kUnit; ++column) {
        const size_t group = column / 4, i = column % 4;
        if (format.low_bits == 8) {
            quants[64 * group + i] = unit[column];
            continue;
        }
        quants[64 * (group % 4) + i] |= static_cast<uint8_t>((unit[column] & 15) << (group < 4 ? 0 : 4));
        const auto high = static_cast<uint8_t>(unit[column] >> 4);
        if (format.high_bits == 1) {
            quants[256 + i] |= static_cast<uint8_t>(high << group);
        } else if (format.high_bits == 2) {
            quants[256 + 64 * (group / 4) + i] |= static_cast<uint8_t>(high << (2 * (group % 4)));
        }
    }
}

void put_half(uint8_t * halves, size_t index, ggml_half value) {
    std::memcpy(halves + 2 * index, &value, sizeof value);
}

// Calls place(block of the row, unit of the block, its quants as numbers, Place) for each unit of each row.
template <class Block, class Unpack>
void pack_units(const Format & format, const void * source, int64_t rows, int64_t columns, uint8_t * panels,
                Unpack unpack) {
    const int64_t units_of_block = format.has_supers() ? kSuper / kUnit : 1;
    const int64_t n_units        = columns / kUnit;
    std::memset(panels, 0, format.bytes(rows, columns));
    const Block * block = static_cast<const Block *>(source);
    for (int64_t row = 0; row < rows; ++row) {
        uint8_t * quants = panels + static_cast<size_t>(row / kPanelRows) * format.panel_bytes(columns);
        uint8_t * scales = quants + static_cast<size_t>(n_units) * format.quant_bytes();
        uint8_t * supers = scales + static_cast<size_t>(n_units) * format.scale_bytes();
        for (int64_t unit = 0; unit < n_units; ++unit) {
            const Place place{quants, scales, supers, static_cast<size_t>(row % kPanelRows)};
            uint8_t     numbers[kUnit];
            unpack(*block, static_cast<size_t>(unit % units_of_block), numbers, place);
            put_quants(format, numbers, place);
            quants += format.quant_bytes();
            scales += format.scale_bytes();
            if ((unit + 1) % units_of_block == 0) {
                supers += format.super_bytes();
                ++block;
            }
        }
    }
}

// The reverse of put_quants().
void get_quants(const Format & format, const uint8_t * quants, int32_t (&unit)[kUnit]) {
    for (size_t column = 0; column < kUnit; ++column) {
        const size_t group = column / 4, i = column % 4;
        if (format.low_bits == 8) {
            unit[column] = quants[64 * group + i];
            continue;
        }
        unit[column] = quants[64 * (group % 4) + i] >> (group < 4 ? 0 : 4) & 15;
        if (format.high_bits == 1) {
            unit[column] |= (quants[256 + i] >> group & 1) << 4;
        } else if (format.high_bits == 2) {
            unit[column] |= (quants[256 + 64 * (group / 4) + i] >> (2 * (group % 4)) & 3) << 4;
        }
    }
}

float half_at(const uint8_t * halves, size_t index) {
    ggml_half half;
    std::memcpy(&half, halves + 2 * index, sizeof half);
    return ggml_fp16_to_fp32(half);
}

// What makes weights of the quants of one half (16 columns) of a unit.
struct Affine {
    float scale;
    float minimum;
};

Affine affine_of(const Format & format, const ReadPlace & place, size_t half) {
    switch (format.scales) {
        case Scales::half:
            return {half_at(place.scales, place.row), 0};
        case Scales::half_min:
            return {half_at(place.scales, place.row), half_at(place.scales, 16 + place.row)};
        case Scales::byte_min:
            return {half_at(place.supers, place.row) * place.scales[place.row],
                    -half_at(place.supers, 16 + place.row) * place.scales[16 + place.row]};
        case Scales::byte:
            break;
    }
    int8_t scale;
    std::memcpy(&scale, place.scales + 16 * half + place.row, 1);
    return {half_at(place.supers, place.row) * scale, 0};
}

void split_halves(const uint8_t * bytes, uint8_t (&numbers)[kUnit]) {
    for (size_t i = 0; i < 16; ++i) {
        numbers[i]      = bytes[i] & 15;
        numbers[16 + i] = bytes[i] >> 4;
    }
}

void add_fifth_bits(const uint8_t * bits, uint8_t (&numbers)[kUnit]) {
    uint32_t all;
    std::memcpy(&all, bits, sizeof all);
    for (size_t i = 0; i < kUnit; ++i) {
        numbers[i] |= static_cast<uint8_t>((all >> i & 1) << 4);
    }
}

void pack_q4_0(const void * source, int64_t rows, int64_t columns, uint8_t * panels) {
    pack_units<block_q4_0>(kQ4_0, source, rows, columns, panels,
                           [](const block_q4_0 & block, size_t, uint8_t (&numbers)[kUnit], const Place & place) {
                               split_halves(block.qs, numbers);
                               put_half(place.scales, place.row, block.d);
                           });
}

void pack_q4_1(const void * source, int64_t rows, int64_t columns, uint8_t * panels) {
    pack_units<block_q4_1>(kQ4_1, source, rows, columns, panels,
                           [](const block_q4_1 & block, size_t, uint8_t (&numbers)[kUnit], const Place & place) {
                               split_halves(block.qs, numbers);
                               put_half(place.scales, place.row, block.d);
                               put_half(place.scales, 16 + place.row, block.m);
                           });
}

void pack_q5_0(const void * source, int64_t rows, int64_t columns, uint8_t * panels) {
    pack_units<block_q5_0>(kQ5_0, source, rows, columns, panels,
                           [](const block_q5_0 & block, size_t, uint8_t (&numbers)[kUnit], const Place & place) {
                               split_halves(block.qs, numbers);
                               add_fifth_bits(block.qh, numbers);
                               put_half(place.scales, place.row, block.d);
                           });
}

void pack_q5_1(const void * source, int64_t rows, int64_t columns, uint8_t * panels) {
    pack_units<block_q5_1>(kQ5_1, source, rows, columns, panels,
                           [](const block_q5_1 & block, size_t, uint8_t (&numbers)[kUnit], const Place & place) {
                               split_halves(block.qs, numbers);
                               add_fifth_bits(block.qh, numbers);
                               put_half(place.scales, place.row, block.d);
                               put_half(place.scales, 16 + place.row, block.m);
                           });
}

void pack_q8_0(const void * source, int64_t rows, int64_t columns, uint8_t * panels) {
    pack_units<block_q8_0>(kQ8_0, source, rows, columns, panels,
                           [](const block_q8_0 & block, size_t, uint8_t (&numbers)[kUnit], const Place & place) {
                               for (size_t i = 0; i < kUnit; ++i) {
                                   numbers[i] = static_cast<uint8_t>(block.qs[i] + 128);
                               }
                               put_half(place.scales, place.row, block.d);
                           });
}

// The six-bit scale and minimum of one of a super-block's eight units, which share twelve bytes.
struct ScaleAndMin {
    uint8_t scale;
    uint8_t min;
};

ScaleAndMin six_bits(const uint8_t (&bytes)[K_SCALE_SIZE], size_t unit) {
    if (unit < 4) {
        return {static_cast<uint8_t>(bytes[unit] & 63), static_cast<uint8_t>(bytes[unit + 4] & 63)};
    }
    const uint8_t both = bytes[unit + 4];
    return {static_cast<uint8_t>((both & 15) | (bytes[unit - 4] >> 6) << 4),
            static_cast<uint8_t>((both >> 4) | (bytes[unit] >> 6) << 4)};
}

// Q4_K and Q5_K: two units share 32 bytes of low bits.
template <class Block>
void unpack_k(const Block & block, size_t unit, uint8_t (&numbers)[kUnit], const Place & place) {
    for (size_t i = 0; i < kUnit; ++i) {
        const uint8_t both = block.qs[32 * (unit / 2) + i];
        numbers[i]         = unit % 2 == 0 ? both & 15 : both >> 4;
    }
    const ScaleAndMin scales      = six_bits(block.scales, unit);
    place.scales[place.row]       = scales.scale;
    place.scales[16 + place.row]  = scales.min;
    put_half(place.supers, place.row, block.d);
    put_half(place.supers, 16 + place.row, block.dmin);
}

void pack_q4_k(const void * source, int64_t rows, int64_t columns, uint8_t * panels) {
    pack_units<block_q4_K>(kQ4_K, source, rows, columns, panels, unpack_k<block_q4_K>);
}

void pack_q5_k(const void * source, int64_t rows, int64_t columns, uint8_t * panels) {
    pack_units<block_q5_K>(kQ5_K, source, rows, columns, panels,
                           [](const block_q5_K & block, size_t unit, uint8_t (&numbers)[kUnit], const Place & place) {
                               unpack_k(block, unit, numbers, place);
                               for (size_t i = 0; i < kUnit; ++i) {
                                   numbers[i] |= static_cast<uint8_t>((block.qh[i] >> unit & 1) << 4);
                               }
                           });
}

// Four units share 64 bytes of low bits and 32 of high ones.
void pack_q6_k(const void * source, int64_t rows, int64_t columns, uint8_t * panels) {
    pack_units<block_q6_K>(kQ6_K, source, rows, columns, panels,
                           [](const block_q6_K & block, size_t unit, uint8_t (&numbers)[kUnit], const Place & place) {
                               const size_t    quarter = unit % 4;
                               const uint8_t * low     = block.ql + 64 * (unit / 4) + 32 * (quarter % 2);
                               const uint8_t * high    = block.qh + 32 * (unit / 4);
                               for (size_t i = 0; i < kUnit; ++i) {
                                   numbers[i] = static_cast<uint8_t>((quarter < 2 ? low[i] & 15 : low[i] >> 4) |
                                                                     (high[i] >> (2 * quarter) & 3) << 4);
                               }
                               for (size_t half = 0; half < 2; ++half) {
                                   const int8_t scale = block.scales[2 * unit + half];
                                   std::memcpy(place.scales + 16 * half + place.row, &scale, 1);
                               }
                               put_half(place.supers, place.row, block.d);
                           });
}

constexpr Packing kPackings[] = {
    {GGML_TYPE_Q4_0, kQ4_0, pack_q4_0}, {GGML_TYPE_Q4_1, kQ4_1, pack_q4_1}, {GGML_TYPE_Q5_0, kQ5_0, pack_q5_0},
    {GGML_TYPE_Q5_1, kQ5_1, pack_q5_1}, {GGML_TYPE_Q8_0, kQ8_0, pack_q8_0}, {GGML_TYPE_Q4_K, kQ4_K, pack_q4_k},
    {GGML_TYPE_Q5_K, kQ5_K, pack_q5_k}, {GGML_TYPE_Q6_K, kQ6_K, pack_q6_k},
};

}  // namespace

const Packing * packing_of_type(int type) {
    for (const Packing & packing : kPackings) {
        if (packing.type == type) {
            return &packing;
        }
    }
    return nullptr;
}

void unpack_row(const Format & format, const uint8_t * panels, int64_t row, int64_t columns, float * output) {
    const auto      n_units = static_cast<size_t>(columns / kUnit);
    const size_t    in_row  = static_cast<size_t>(row % kPanelRows);
    const uint8_t * quants  = panels + static_cast<size_t>(row / kPanelRows) * format.panel_bytes(columns);
    const uint8_t * scales  = quants + n_units * format.quant_bytes();
    const uint8_t * supers  = scales + n_units * format.scale_bytes();
    for (size_t unit = 0; unit < n_units; ++unit) {
        const ReadPlace place{quants + unit * format.quant_bytes(), scales + unit * format.scale_bytes(),
                              supers + unit / (kSuper / kUnit) * format.super_bytes(), in_row};
        int32_t numbers[kUnit];
        get_quants(format, place.quants + 4 * in_row, numbers);
        for (size_t column = 0; column < kUnit; ++column) {
            const Affine affine           = affine_of(format, place, column / 16);
            const auto   number           = static_cast<float>(numbers[column] - format.zero_point);
            output[unit * kUnit + column] = affine.scale * number + affine.minimum;
        }
    }
}

}  // namespace inferno::kernels

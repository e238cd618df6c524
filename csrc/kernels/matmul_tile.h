// The loops of matmul.h over an instruction set, which a file that is compiled for it gives as `Isa`:
//
//   kLanes                      32-bit lanes of a register
//   Int, Float                  registers
//   load(p)                     kLanes * 4 bytes
//   broadcast(p)                the 32-bit word at p in all lanes
//   dot(sum, u, s)              sum + the products of 4 unsigned and 4 signed bytes, in each lane
//   shift<n>(x)                 16-bit words, to the left by n, to the right where n is negative
//   bits(x, mask), either(x, y) of each byte
//   halves(p), bytes(p), signed_bytes(p)   kLanes numbers as Float
//   to_float, multiply, fma, store, zero, zero_int
//   largest(x, n)               largest magnitude of n floats
//   quantize<n>(x, scale, p)    n = 16 or 32 floats times scale, rounded, to p; their sum
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>

#include "matmul.h"

namespace inferno::kernels {

// The processor's own prefetching stumbles over the scales between two panels' quants. Panels follow one another in
// memory, so what lies this many bytes ahead is what is needed next.
constexpr size_t kAhead = 8192;

// Group g of a unit as numbers.
template <class Isa, int low_bits, int high_bits, int g>
inline typename Isa::Int group(const uint8_t * quants) {
    if constexpr (low_bits == 8) {
        return Isa::load(quants + 64 * g);
    } else {
        const auto both = Isa::load(quants + 64 * (g % 4));
        const auto low  = Isa::bits(g < 4 ? both : Isa::template shift<-4>(both), 15);
        if constexpr (high_bits == 0) {
            return low;
        } else if constexpr (high_bits == 1) {
            return Isa::either(low, Isa::bits(Isa::template shift<4 - g>(Isa::load(quants + 256)), 0x10));
        } else {
            const auto high = Isa::load(quants + 256 + 64 * (g / 4));
            return Isa::either(low, Isa::bits(Isa::template shift<4 - 2 * (g % 4)>(high), 0x30));
        }
    }
}

template <class Isa, int R>
inline void add_products(typename Isa::Int (&products)[R], typename Isa::Int weights, const uint8_t * quants,
                         int64_t stride) {
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r) {
        products[r] = Isa::dot(products[r], weights, Isa::broadcast(quants + r * stride));
    }
}

// Groups [g, end) of a unit, of which the tile's quants hold `first` onwards.
template <class Isa, int low_bits, int high_bits, int g, int end, int R>
inline void add_groups(typename Isa::Int (&products)[R], const uint8_t * quants, const uint8_t * tile, int64_t block) {
    if constexpr (g < end) {
        add_products<Isa, R>(products, group<Isa, low_bits, high_bits, g>(quants), tile, block);
        add_groups<Isa, low_bits, high_bits, g + 1, end, R>(products, quants, tile + 4, block);
    }
}

// One panel's lanes, on their way along the columns.
template <class Isa, int low_bits, int high_bits, Scales kind, int R>
class Walk {
    using Int   = typename Isa::Int;
    using Float = typename Isa::Float;
    static constexpr Format  format{low_bits, high_bits, kind, 0};
    static constexpr int64_t kColumns = format.block();
    static constexpr int     kGroups  = static_cast<int>(kColumns / 4);

public:
    Walk(const uint8_t * panel, int64_t n_units, int lane)
        : quants_(panel + 4 * lane), scales_(panel + static_cast<size_t>(n_units) * format.quant_bytes()),
          supers_(scales_ + static_cast<size_t>(n_units) * format.scale_bytes()), lane_(lane) {}

    // One unit, with the tile's part for it; returns the tile's next part.
    inline const uint8_t * step(const uint8_t * tile, Float (&sums)[R]) {
        tile = add_block<0>(tile, sums);
        if constexpr (kColumns == 16) {
            tile = add_block<1>(tile, sums);
        }
        quants_ += format.quant_bytes();
        scales_ += format.scale_bytes();
        return tile;
    }

    inline void next_super() {
        if constexpr (format.has_supers()) {
            delta_ = Isa::halves(supers_ + 2 * lane_);
            if constexpr (format.has_min()) {
                minimum_ = Isa::multiply(Isa::halves(supers_ + 32 + 2 * lane_), Isa::set(-1.0f));
            }
            supers_ += format.super_bytes();
        }
    }

private:
    template <int b>
    inline const uint8_t * add_block(const uint8_t * tile, Float (&sums)[R]) {
        const uint8_t * scale = tile + R * kColumns;
        const uint8_t * sum   = scale + R * 4;
        Int             products[R];
        for (int r = 0; r < R; ++r) {
            products[r] = format.has_min() ? Isa::zero_int() : Isa::broadcast(sum + 4 * r);
        }
        add_groups<Isa, low_bits, high_bits, b * kGroups, (b + 1) * kGroups, R>(products, quants_, tile, kColumns);
        const Float delta = this->delta(b);
#pragma GCC unroll 16
        for (int r = 0; r < R; ++r) {
            const Float scaled = Isa::multiply(Isa::to_float(products[r]), delta);
            sums[r]            = Isa::fma(scaled, Isa::broadcast_float(scale + 4 * r), sums[r]);
        }
        if constexpr (format.has_min()) {
            const Float minimum = this->minimum();
#pragma GCC unroll 16
            for (int r = 0; r < R; ++r) {
                sums[r] = Isa::fma(minimum, Isa::broadcast_float(sum + 4 * r), sums[r]);
            }
        }
        return tile + R * (kColumns + 8);
    }

    inline Float delta(int b) const {
        if constexpr (kind == Scales::byte) {
            return Isa::multiply(delta_, Isa::signed_bytes(scales_ + 16 * b + lane_));
        } else if constexpr (kind == Scales::byte_min) {
            return Isa::multiply(delta_, Isa::bytes(scales_ + lane_));
        } else {
            return Isa::halves(scales_ + 2 * lane_);
        }
    }

    inline Float minimum() const {
        if constexpr (kind == Scales::byte_min) {
            return Isa::multiply(minimum_, Isa::bytes(scales_ + 16 + lane_));
        } else {
            return Isa::halves(scales_ + 32 + 2 * lane_);
        }
    }

    const uint8_t * quants_;
    const uint8_t * scales_;
    const uint8_t * supers_;
    const int       lane_;
    Float           delta_   = Isa::zero();
    Float           minimum_ = Isa::zero();
};

// The output of one panel's lanes [lane, lane + kLanes) for R rows.
template <class Isa, int low_bits, int high_bits, Scales kind, int R>
inline void multiply_lanes(const uint8_t * panel, const uint8_t * tile, int64_t columns, int lane, float * output,
                           int64_t stride, int n, bool prefetch) {
    constexpr Format format{low_bits, high_bits, kind, 0};
    constexpr size_t kBytes = format.quant_bytes() + format.scale_bytes();
    const int64_t    n_units = columns / kUnit;
    const uint8_t *  ahead   = panel + kAhead;

    typename Isa::Float sums[R];
    for (int r = 0; r < R; ++r) {
        sums[r] = Isa::zero();
    }
    Walk<Isa, low_bits, high_bits, kind, R> walk(panel, n_units, lane);
    for (int64_t unit = 0; unit < n_units; ++unit) {
        if (prefetch) {
            for (size_t line = 0; line < kBytes; line += 64) {
                __builtin_prefetch(ahead + line);
            }
            ahead += kBytes;
        }
        if (format.has_supers() && unit % (kSuper / kUnit) == 0) {
            walk.next_super();
        }
        tile = walk.step(tile, sums);
    }
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r) {
        Isa::store(output + r * stride, sums[r], n);
    }
}

template <class Isa, int low_bits, int high_bits, Scales kind, int R = 1>
void multiply_panel(const uint8_t * panel, const uint8_t * tile, int n_rows, int64_t columns, float * output,
                    int64_t stride, int n, bool prefetch) {
    if constexpr (R < kMaxTileRows) {
        if (n_rows > R) {
            return multiply_panel<Isa, low_bits, high_bits, kind, R + 1>(panel, tile, n_rows, columns, output, stride, n,
                                                                         prefetch);
        }
    }
    for (int lane = 0; lane < n; lane += Isa::kLanes) {
        multiply_lanes<Isa, low_bits, high_bits, kind, R>(panel, tile, columns, lane, output + lane, stride,
                                                          std::min(n - lane, Isa::kLanes), prefetch && lane == 0);
    }
}

template <class Isa>
void multiply(const Format & format, const uint8_t * panel, const uint8_t * tile, int n_rows, int64_t columns,
              float * output, int64_t stride, int n, bool prefetch) {
    const auto with = [&](auto function) { function(panel, tile, n_rows, columns, output, stride, n, prefetch); };
    switch (format.scales) {
        case Scales::half:
            return format.low_bits == 8    ? with(multiply_panel<Isa, 8, 0, Scales::half>)
                   : format.high_bits == 1 ? with(multiply_panel<Isa, 4, 1, Scales::half>)
                                           : with(multiply_panel<Isa, 4, 0, Scales::half>);
        case Scales::half_min:
            return format.high_bits == 1 ? with(multiply_panel<Isa, 4, 1, Scales::half_min>)
                                         : with(multiply_panel<Isa, 4, 0, Scales::half_min>);
        case Scales::byte_min:
            return format.high_bits == 1 ? with(multiply_panel<Isa, 4, 1, Scales::byte_min>)
                                         : with(multiply_panel<Isa, 4, 0, Scales::byte_min>);
        case Scales::byte:
            return with(multiply_panel<Isa, 4, 2, Scales::byte>);
    }
}

// One row's activation block, which is one or several blocks of the weights.
template <class Isa, int64_t block>
void quantize_block(const Format & format, const float * x, uint8_t * tile, int r, int n_rows) {
    const float   top   = Isa::largest(x, format.activation_block());
    const float   scale = top != 0.0f ? 127.0f / top : 0.0f;
    const float   exact = top / 127.0f;
    // ggml keeps the scale of 32 columns in half precision, that of 256 in single.
    const bool    half    = !format.has_supers();
    const float   delta   = half ? Isa::through_half(exact) : exact;
    const int64_t n_parts = format.activation_block() / block;
    for (int64_t part = 0; part < n_parts; ++part) {
        const int32_t sum = Isa::template quantize<block>(x + part * block, scale, tile + r * block);
        std::memcpy(tile + n_rows * block + 4 * r, &delta, 4);
        const float   scaled = exact * static_cast<float>(sum);
        const float   kept   = half ? Isa::through_half(scaled) : scaled;
        const int32_t offset = -format.zero_point * sum;
        std::memcpy(tile + n_rows * (block + 4) + 4 * r, format.has_min() ? static_cast<const void *>(&kept) : &offset, 4);
        tile += n_rows * (block + 8);
    }
}

template <class Isa>
void quantize(const Format & format, const float * const * rows, int n_rows, int64_t columns, uint8_t * tile) {
    const int64_t step = format.activation_block();
    for (int64_t column = 0; column < columns; column += step) {
        for (int r = 0; r < n_rows; ++r) {
            if (format.block() == 16) {
                quantize_block<Isa, 16>(format, rows[r] + column, tile, r, n_rows);
            } else {
                quantize_block<Isa, 32>(format, rows[r] + column, tile, r, n_rows);
            }
        }
        tile += tile_bytes(format, n_rows, step);
    }
}

}  // namespace inferno::kernels

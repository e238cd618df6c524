// The loops of matmul.h over an instruction set, which a file that is compiled for it gives as `Isa`:
//
//   kLanes                      32-bit lanes of a register
//   kTwoPanels                  registers are as many as two panels at once take: kLanes is 16, and there are 32
//   Int, Float                  registers
//   load(p)                     kLanes * 4 bytes
//   in_register(x)              x, which the compiler is not to load again for each use
//   broadcast(p)                the 32-bit word at p in all lanes
//   dot(sum, u, s)              sum + the products of 4 unsigned and 4 signed bytes, in each lane
//   shift<n>(x)                 16-bit words, to the left by n, to the right where n is negative
//   bits(x, mask), either(x, y) of each byte
//   halves(p), bytes(p), signed_bytes(p)   kLanes numbers as Float
//   to_float, multiply, fma, store, zero, zero_int
//   largest(x, n)               largest magnitude of n floats
//   kFourBlocks, quantize_four  whether there is a way to quantize four blocks of 32 at once, and that
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

// What one call computes: see Kernels::multiply.
struct Piece {
    const uint8_t * panel;  // the first
    const uint8_t * tile;
    int             tile_rows;
    int64_t         columns;
    float *         output;
    int64_t         stride;
    int             n;
    bool            prefetch;
};

// P panels' lanes and R rows of a tile, on their way along the columns. Two panels share what is broadcast of the rows,
// which is half of the loads.
template <class Isa, int low_bits, int high_bits, Scales kind, int R, int P>
class Walk {
    using Int   = typename Isa::Int;
    using Float = typename Isa::Float;
    static constexpr Format  format{low_bits, high_bits, kind, 0};
    static constexpr int64_t kColumns = format.block();
    static constexpr int     kGroups  = static_cast<int>(kColumns / 4);

public:
    // Of the tile, the rows from `row` on.
    Walk(const Piece & piece, int row, int lane)
        : tile_(piece.tile), tile_rows_(piece.tile_rows), row_(row), lane_(lane) {
        const auto n_units = static_cast<size_t>(piece.columns / kUnit);
        for (int p = 0; p < P; ++p) {
            const uint8_t * panel = piece.panel + static_cast<size_t>(p) * format.panel_bytes(piece.columns);
            quants_[p]            = panel + 4 * lane;
            scales_[p]            = panel + n_units * format.quant_bytes();
            supers_[p]            = scales_[p] + n_units * format.scale_bytes();
        }
    }

    inline void next_unit(Float (&sums)[P][R]) {
        add_block<0>(sums);
        if constexpr (kColumns == 16) {
            add_block<1>(sums);
        }
        for (int p = 0; p < P; ++p) {
            quants_[p] += format.quant_bytes();
            scales_[p] += format.scale_bytes();
        }
    }

    inline void next_super() {
        if constexpr (format.has_supers()) {
            for (int p = 0; p < P; ++p) {
                delta_[p] = Isa::halves(supers_[p] + 2 * lane_);
                if constexpr (format.has_min()) {
                    minimum_[p] = Isa::multiply(Isa::halves(supers_[p] + 32 + 2 * lane_), Isa::set(-1.0f));
                }
                supers_[p] += format.super_bytes();
            }
        }
    }

private:
    template <int b>
    inline void add_block(Float (&sums)[P][R]) {
        const uint8_t * scale = tile_ + tile_rows_ * kColumns + 4 * row_;
        const uint8_t * sum   = scale + 4 * tile_rows_;
        Int             products[P][R];
#pragma GCC unroll 16
        for (int r = 0; r < R; ++r) {
            const Int start = format.has_min() ? Isa::zero_int() : Isa::broadcast(sum + 4 * r);
            for (int p = 0; p < P; ++p) {
                products[p][r] = start;
            }
        }
        add_groups<b * kGroups, (b + 1) * kGroups>(tile_ + row_ * kColumns, products);
        Float delta[P];
        for (int p = 0; p < P; ++p) {
            delta[p] = this->delta(p, b);
        }
#pragma GCC unroll 16
        for (int r = 0; r < R; ++r) {
            const Float factor = Isa::broadcast_float(scale + 4 * r);
            for (int p = 0; p < P; ++p) {
                sums[p][r] = Isa::fma(Isa::multiply(Isa::to_float(products[p][r]), delta[p]), factor, sums[p][r]);
            }
        }
        if constexpr (format.has_min()) {
            add_minima(sum, sums);
        }
        tile_ += tile_rows_ * (kColumns + 8);
    }

    // Groups [g, end) of the unit; `quants` are those of the first row.
    template <int g, int end>
    inline void add_groups(const uint8_t * quants, Int (&products)[P][R]) const {
        if constexpr (g < end) {
            Int weights[P];
            for (int p = 0; p < P; ++p) {
                weights[p] = group<Isa, low_bits, high_bits, g>(quants_[p]);
                if constexpr (P > 1) {
                    weights[p] = Isa::in_register(weights[p]);
                }
            }
#pragma GCC unroll 16
            for (int r = 0; r < R; ++r) {
                const Int four = Isa::broadcast(quants + r * kColumns);
                for (int p = 0; p < P; ++p) {
                    products[p][r] = Isa::dot(products[p][r], weights[p], four);
                }
            }
            add_groups<g + 1, end>(quants + 4, products);
        }
    }

    inline void add_minima(const uint8_t * sum, Float (&sums)[P][R]) const {
        Float minimum[P];
        for (int p = 0; p < P; ++p) {
            minimum[p] = this->minimum(p);
        }
#pragma GCC unroll 16
        for (int r = 0; r < R; ++r) {
            const Float factor = Isa::broadcast_float(sum + 4 * r);
            for (int p = 0; p < P; ++p) {
                sums[p][r] = Isa::fma(minimum[p], factor, sums[p][r]);
            }
        }
    }

    inline Float delta(int p, int b) const {
        if constexpr (kind == Scales::byte) {
            return Isa::multiply(delta_[p], Isa::signed_bytes(scales_[p] + 16 * b + lane_));
        } else if constexpr (kind == Scales::byte_min) {
            return Isa::multiply(delta_[p], Isa::bytes(scales_[p] + lane_));
        } else {
            return Isa::halves(scales_[p] + 2 * lane_);
        }
    }

    inline Float minimum(int p) const {
        if constexpr (kind == Scales::byte_min) {
            return Isa::multiply(minimum_[p], Isa::bytes(scales_[p] + 16 + lane_));
        } else {
            return Isa::halves(scales_[p] + 32 + 2 * lane_);
        }
    }

    const uint8_t * tile_;
    const int       tile_rows_;
    const int       row_;
    const int       lane_;
    const uint8_t * quants_[P];
    const uint8_t * scales_[P];
    const uint8_t * supers_[P];
    Float           delta_[P]   = {};
    Float           minimum_[P] = {};
};

// Asks for units ahead of where they are needed, of two panels side by side, and then of the two behind them.
class Ahead {
public:
    Ahead(const Format & format, const Piece & piece)
        : panels_(piece.panel), panel_bytes_(format.panel_bytes(piece.columns)),
          n_units_(static_cast<size_t>(piece.columns / kUnit)),
          unit_(kAhead / 2 / (format.quant_bytes() + format.scale_bytes())) {}

    inline void next_unit(const Format & format) {
        while (unit_ >= n_units_) {
            unit_ -= n_units_;
            panels_ += 2 * panel_bytes_;
        }
        for (const uint8_t * panel : {panels_, panels_ + panel_bytes_}) {
            for (size_t line = 0; line < format.quant_bytes(); line += 64) {
                __builtin_prefetch(panel + unit_ * format.quant_bytes() + line);
            }
            __builtin_prefetch(panel + n_units_ * format.quant_bytes() + unit_ * format.scale_bytes());
        }
        ++unit_;
    }

private:
    const uint8_t * panels_;
    const size_t    panel_bytes_;
    const size_t    n_units_;
    size_t          unit_;
};

// Lanes [lane, lane + kLanes) of P panels, for R rows of the tile from `row` on.
template <class Isa, int low_bits, int high_bits, Scales kind, int R, int P>
[[gnu::noinline]] void multiply_lanes(const Piece & piece, int row, int lane) {
    constexpr Format format{low_bits, high_bits, kind, 0};
    const int64_t    n_units  = piece.columns / kUnit;
    const bool       prefetch = piece.prefetch && lane == 0 && row == 0;
    constexpr size_t kBytes   = format.quant_bytes() + format.scale_bytes();
    const uint8_t *  ahead    = piece.panel + kAhead;
    Ahead            ahead_of_two(format, piece);

    typename Isa::Float sums[P][R];
    for (int p = 0; p < P; ++p) {
        for (int r = 0; r < R; ++r) {
            sums[p][r] = Isa::zero();
        }
    }
    Walk<Isa, low_bits, high_bits, kind, R, P> walk(piece, row, lane);
    for (int64_t unit = 0; unit < n_units; ++unit) {
        if (prefetch && P == 2) {
            ahead_of_two.next_unit(format);
        } else if (prefetch) {
            for (size_t line = 0; line < kBytes; line += 64) {
                __builtin_prefetch(ahead + line);
            }
            ahead += kBytes;
        }
        if (format.has_supers() && unit % (kSuper / kUnit) == 0) {
            walk.next_super();
        }
        walk.next_unit(sums);
    }
    for (int p = 0; p < P; ++p) {
        float *   output = piece.output + row * piece.stride + p * kPanelRows + lane;
        const int n      = std::min(piece.n - static_cast<int>(p * kPanelRows) - lane, Isa::kLanes);
#pragma GCC unroll 16
        for (int r = 0; r < R; ++r) {
            Isa::store(output + r * piece.stride, sums[p][r], n);
        }
    }
}

// `n_rows` rows of the tile from `row` on.
template <class Isa, int low_bits, int high_bits, Scales kind, int P, int R = 1>
void multiply_rows(const Piece & piece, int row, int n_rows) {
    if constexpr (R < kMaxTileRows / P) {
        if (n_rows > R) {
            return multiply_rows<Isa, low_bits, high_bits, kind, P, R + 1>(piece, row, n_rows);
        }
    }
    for (int lane = 0; lane < std::min<int>(piece.n, kPanelRows); lane += Isa::kLanes) {
        multiply_lanes<Isa, low_bits, high_bits, kind, R, P>(piece, row, lane);
    }
}

template <class Isa, int low_bits, int high_bits, Scales kind>
void multiply_piece(const Piece & piece) {
    if constexpr (Isa::kTwoPanels) {
        // From memory, one stream comes faster than two, unless there is enough to compute meanwhile.
        const bool waits = piece.prefetch && (low_bits == 8 || piece.tile_rows == 1);
        if (piece.n > kPanelRows && !waits) {
            const int first = piece.tile_rows > kMaxTileRows / 2 ? (piece.tile_rows + 1) / 2 : piece.tile_rows;
            multiply_rows<Isa, low_bits, high_bits, kind, 2>(piece, 0, first);
            if (first < piece.tile_rows) {
                multiply_rows<Isa, low_bits, high_bits, kind, 2>(piece, first, piece.tile_rows - first);
            }
            return;
        }
    }
    Piece one = piece;
    for (int column = 0; column < piece.n; column += kPanelRows) {
        one.n = std::min<int>(piece.n - column, kPanelRows);
        multiply_rows<Isa, low_bits, high_bits, kind, 1>(one, 0, piece.tile_rows);
        one.panel += Format{low_bits, high_bits, kind, 0}.panel_bytes(piece.columns);
        one.output += kPanelRows;
    }
}

template <class Isa>
void multiply(const Format & format, const uint8_t * panel, const uint8_t * tile, int n_rows, int64_t columns,
              float * output, int64_t stride, int n, bool prefetch) {
    const auto with = [&](auto function) { function({panel, tile, n_rows, columns, output, stride, n, prefetch}); };
    switch (format.scales) {
        case Scales::half:
            return format.low_bits == 8    ? with(multiply_piece<Isa, 8, 0, Scales::half>)
                   : format.high_bits == 1 ? with(multiply_piece<Isa, 4, 1, Scales::half>)
                                           : with(multiply_piece<Isa, 4, 0, Scales::half>);
        case Scales::half_min:
            return format.high_bits == 1 ? with(multiply_piece<Isa, 4, 1, Scales::half_min>)
                                         : with(multiply_piece<Isa, 4, 0, Scales::half_min>);
        case Scales::byte_min:
            return format.high_bits == 1 ? with(multiply_piece<Isa, 4, 1, Scales::byte_min>)
                                         : with(multiply_piece<Isa, 4, 0, Scales::byte_min>);
        case Scales::byte:
            return with(multiply_piece<Isa, 4, 2, Scales::byte>);
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
    const int64_t step   = format.activation_block();
    int64_t       column = 0;
    if constexpr (Isa::kFourBlocks) {
        for (; step == kUnit && column + 4 * step <= columns; column += 4 * step) {
            for (int r = 0; r < n_rows; ++r) {
                Isa::quantize_four(format, rows[r] + column, tile, r, n_rows);
            }
            tile += tile_bytes(format, n_rows, 4 * step);
        }
    }
    for (; column < columns; column += step) {
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

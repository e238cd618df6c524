// The loops of matmul.h over an instruction set, which a file that is compiled for it gives as `Isa`:
//
//   kLanes                      32-bit lanes of a register
//   Int, Float                  registers
//   load(p)                     kLanes * 4 bytes
//   broadcast(p)                the 32-bit word at p in all lanes
//   dot(sum, u, s)              sum + the products of 4 unsigned and 4 signed bytes, in each lane
//   low_halves(x), high_halves(x)   of each byte
//   halves(p)                   kLanes half-precision numbers as Float
//   to_float, set, multiply, fma, store, zero
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

// The output of one panel's lanes [lane, lane + kLanes) for R rows.
template <class Isa, int bits, bool has_min, int R>
inline void multiply_tile(const uint8_t * quants, const uint8_t * scales, const uint8_t * tile, int64_t n_blocks,
                          int lane, float * output, int64_t stride, int n, bool prefetch) {
    using Int   = typename Isa::Int;
    using Float = typename Isa::Float;
    constexpr Format format{bits, has_min, 0};

    Float sums[R];
    for (int r = 0; r < R; ++r) {
        sums[r] = Isa::zero();
    }
    const uint8_t * ahead = quants + kAhead;
    quants += 4 * lane;
    scales += 2 * lane;
    for (int64_t block = 0; block < n_blocks; ++block) {
        if (prefetch) {
            for (size_t line = 0; line < format.quant_bytes() + format.scale_bytes(); line += 64) {
                __builtin_prefetch(ahead + line);
            }
            ahead += format.quant_bytes() + format.scale_bytes();
        }
        const uint8_t * scale = tile + R * kBlock;
        const uint8_t * sum   = scale + R * 4;
        Int             products[R];
        for (int r = 0; r < R; ++r) {
            products[r] = has_min ? Isa::zero_int() : Isa::broadcast(sum + 4 * r);
        }
        if constexpr (bits == 4) {
#pragma GCC unroll 4
            for (int group = 0; group < 4; ++group) {
                const Int both = Isa::load(quants + 64 * group);
                const Int low = Isa::low_halves(both), high = Isa::high_halves(both);
#pragma GCC unroll 16
                for (int r = 0; r < R; ++r) {
                    products[r] = Isa::dot(products[r], low, Isa::broadcast(tile + r * kBlock + 4 * group));
                }
#pragma GCC unroll 16
                for (int r = 0; r < R; ++r) {
                    products[r] = Isa::dot(products[r], high, Isa::broadcast(tile + r * kBlock + 16 + 4 * group));
                }
            }
        } else {
#pragma GCC unroll 8
            for (int group = 0; group < 8; ++group) {
                const Int quad = Isa::load(quants + 64 * group);
#pragma GCC unroll 16
                for (int r = 0; r < R; ++r) {
                    products[r] = Isa::dot(products[r], quad, Isa::broadcast(tile + r * kBlock + 4 * group));
                }
            }
        }
        const Float delta = Isa::halves(scales);
#pragma GCC unroll 16
        for (int r = 0; r < R; ++r) {
            sums[r] = Isa::fma(Isa::multiply(Isa::to_float(products[r]), delta), Isa::broadcast_float(scale + 4 * r),
                               sums[r]);
        }
        if constexpr (has_min) {
            const Float minimum = Isa::halves(scales + 2 * kPanelRows);
#pragma GCC unroll 16
            for (int r = 0; r < R; ++r) {
                sums[r] = Isa::fma(minimum, Isa::broadcast_float(sum + 4 * r), sums[r]);
            }
        }
        quants += format.quant_bytes();
        scales += format.scale_bytes();
        tile += R * (kBlock + 8);
    }
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r) {
        Isa::store(output + r * stride, sums[r], n);
    }
}

template <class Isa, int bits, bool has_min, int R>
void multiply_panel(const uint8_t * panel, const uint8_t * tile, int64_t columns, float * output, int64_t stride, int n,
                    bool prefetch) {
    const int64_t   n_blocks = columns / kBlock;
    const uint8_t * scales   = panel + static_cast<size_t>(n_blocks) * Format{bits, has_min, 0}.quant_bytes();
    for (int lane = 0; lane < kPanelRows && lane < n; lane += Isa::kLanes) {
        multiply_tile<Isa, bits, has_min, R>(panel, scales, tile, n_blocks, lane, output + lane, stride,
                                             std::min(n - lane, Isa::kLanes), prefetch && lane == 0);
    }
}

template <class Isa, int bits, bool has_min, int R = 1>
void multiply_rows(const uint8_t * panel, const uint8_t * tile, int n_rows, int64_t columns, float * output,
                   int64_t stride, int n, bool prefetch) {
    if (n_rows == R) {
        return multiply_panel<Isa, bits, has_min, R>(panel, tile, columns, output, stride, n, prefetch);
    }
    if constexpr (R < kMaxTileRows) {
        multiply_rows<Isa, bits, has_min, R + 1>(panel, tile, n_rows, columns, output, stride, n, prefetch);
    }
}

template <class Isa>
void multiply(const Format & format, const uint8_t * panel, const uint8_t * tile, int n_rows, int64_t columns,
              float * output, int64_t stride, int n, bool prefetch) {
    if (format.bits == 8) {
        multiply_rows<Isa, 8, false>(panel, tile, n_rows, columns, output, stride, n, prefetch);
    } else if (format.has_min) {
        multiply_rows<Isa, 4, true>(panel, tile, n_rows, columns, output, stride, n, prefetch);
    } else {
        multiply_rows<Isa, 4, false>(panel, tile, n_rows, columns, output, stride, n, prefetch);
    }
}

template <class Isa>
void quantize(const Format & format, const float * const * rows, int n_rows, int64_t columns, uint8_t * tile) {
    for (int64_t block = 0; block < columns / kBlock; ++block) {
        uint8_t * scales = tile + n_rows * kBlock;
        uint8_t * sums   = scales + n_rows * 4;
        for (int r = 0; r < n_rows; ++r) {
            float         delta;
            const int32_t sum     = Isa::quantize_block(rows[r] + block * kBlock, tile + r * kBlock, delta);
            const float   rounded = Isa::through_half(delta);
            std::memcpy(scales + 4 * r, &rounded, 4);
            if (format.has_min) {
                const float scaled = Isa::through_half(delta * static_cast<float>(sum));
                std::memcpy(sums + 4 * r, &scaled, 4);
            } else {
                const int32_t offset = -format.zero_point * sum;
                std::memcpy(sums + 4 * r, &offset, 4);
            }
        }
        tile += n_rows * (kBlock + 8);
    }
}

}  // namespace inferno::kernels

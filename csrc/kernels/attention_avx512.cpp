// Attention with AVX-512. Compiled for it; called only where the processor has it.
#include <immintrin.h>

#include <algorithm>
#include <cstring>
#include <limits>

#include "attention.h"
#include "float_kinds.h"
#include "exp_avx512.h"
#include "lanes_avx512.h"

namespace inferno::kernels {

namespace {

constexpr int64_t kLanes         = 16;
constexpr int64_t kCells         = 64;  // cells of a block
constexpr int     kRows          = 6;   // rows that a product keeps in registers: 6 x 4 sums
constexpr int64_t kAhead         = 6;  // query rows
constexpr float   kMinusInfinity = -std::numeric_limits<float>::infinity();

using Half = uint16_t;

// 16 x 16 floats in registers, rows to columns.
void transpose(__m512 (&r)[16]) {
    __m512 t[16];
    for (int i = 0; i < 16; i += 2) {
        t[i]     = _mm512_unpacklo_ps(r[i], r[i + 1]);
        t[i + 1] = _mm512_unpackhi_ps(r[i], r[i + 1]);
    }
    for (int i = 0; i < 16; i += 4) {
        for (int j = 0; j < 2; ++j) {
            const __m512d a = _mm512_castps_pd(t[i + j]), b = _mm512_castps_pd(t[i + j + 2]);
            r[i + 2 * j]     = _mm512_castpd_ps(_mm512_unpacklo_pd(a, b));
            r[i + 2 * j + 1] = _mm512_castpd_ps(_mm512_unpackhi_pd(a, b));
        }
    }
    for (int i = 0; i < 16; i += 8) {
        for (int j = 0; j < 4; ++j) {
            t[i + j]     = _mm512_shuffle_f32x4(r[i + j], r[i + j + 4], 0x88);
            t[i + j + 4] = _mm512_shuffle_f32x4(r[i + j], r[i + j + 4], 0xdd);
        }
    }
    for (int j = 0; j < 8; ++j) {
        r[j]     = _mm512_shuffle_f32x4(t[j], t[j + 8], 0x88);
        r[j + 8] = _mm512_shuffle_f32x4(t[j], t[j + 8], 0xdd);
    }
}

// The sums of 16 registers' lanes, in their order.
__m512 sums_of(const float (*rows)[16]) {
    __m512 a[16];
    for (int i = 0; i < 16; ++i) {
        a[i] = _mm512_loadu_ps(rows[i]);
    }
    for (int i = 0; i < 8; ++i) {
        a[i] = _mm512_add_ps(_mm512_unpacklo_ps(a[2 * i], a[2 * i + 1]), _mm512_unpackhi_ps(a[2 * i], a[2 * i + 1]));
    }
    for (int i = 0; i < 4; ++i) {
        const __m512d x = _mm512_castps_pd(a[2 * i]), y = _mm512_castps_pd(a[2 * i + 1]);
        a[i] = _mm512_add_ps(_mm512_castpd_ps(_mm512_unpacklo_pd(x, y)), _mm512_castpd_ps(_mm512_unpackhi_pd(x, y)));
    }
    for (int n = 2; n > 0; n /= 2) {
        for (int i = 0; i < n; ++i) {
            a[i] = _mm512_add_ps(_mm512_shuffle_f32x4(a[2 * i], a[2 * i + 1], 0x88),
                                 _mm512_shuffle_f32x4(a[2 * i], a[2 * i + 1], 0xdd));
        }
    }
    return a[0];
}

__m512 load(const float * p) {
    return _mm512_loadu_ps(p);
}

__m512 load(const Half * p) {
    return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i *>(p)));
}

// sums[r][j] += sum over i < n of left[r][i] * right[i][j], for j < 16 * W. Strides of floats on the left, of bytes on the
// right.
template <int R, int W, class Right>
void multiply_rows(const float * left, int64_t left_stride, const Right * right, size_t right_stride, int64_t n,
                   float * sums, int64_t sums_stride) {
    __m512 s[R][W];
    for (int r = 0; r < R; ++r) {
        for (int64_t j = 0; j < W; ++j) {
            s[r][j] = load(sums + r * sums_stride + j * kLanes);
        }
    }
    for (int64_t i = 0; i < n; ++i) {
        __m512 row[W];
        for (int64_t j = 0; j < W; ++j) {
            row[j] = load(right + j * kLanes);
        }
#pragma GCC unroll 6
        for (int r = 0; r < R; ++r) {
            const __m512 factor = _mm512_set1_ps(left[r * left_stride + i]);
            for (int j = 0; j < W; ++j) {
                s[r][j] = _mm512_fmadd_ps(factor, row[j], s[r][j]);
            }
        }
        right = reinterpret_cast<const Right *>(reinterpret_cast<const char *>(right) + right_stride);
    }
    for (int r = 0; r < R; ++r) {
        for (int64_t j = 0; j < W; ++j) {
            _mm512_storeu_ps(sums + r * sums_stride + j * kLanes, s[r][j]);
        }
    }
}

template <int W, class Right, int R = kRows>
void multiply(int64_t rows, const float * left, int64_t left_stride, const Right * right, size_t right_stride, int64_t n,
              float * sums, int64_t sums_stride) {
    for (; rows >= R; rows -= R) {
        multiply_rows<R, W>(left, left_stride, right, right_stride, n, sums, sums_stride);
        left += R * left_stride;
        sums += R * sums_stride;
    }
    if constexpr (R > 1) {
        multiply<W, Right, R - 1>(rows, left, left_stride, right, right_stride, n, sums, sums_stride);
    }
}

class Tile {
public:
    Tile(const Queries & queries, const Cells & cells, const Attended & result, float * scratch)
        : queries_(queries), cells_(cells), result_(result), size_(queries.head_size), rows_(queries.rows()),
          q_(scratch), keys_(q_ + kMaxQueryRows * size_), values_(keys_ + kCells * size_),
          scores_(values_ + kCells * size_) {}

    void attend() {
        start();
        for (int64_t cell = cells_.begin; cell < cells_.end; cell += kCells) {
            const int64_t n    = visible(cell, std::min(kCells, cells_.end - cell));
            if (n > 0) {
                rows_ <= kRows ? score_few(cell, n) : score_many(cell, n);
                weigh(cell, n);
                rows_ <= kRows ? add_values(value(cell), cells_.value_stride, n) : add_converted_values(cell, n);
            }
        }
    }

private:
    void start() {
        for (int64_t row = 0; row < rows_; ++row) {
            prefetch(query(row + kAhead), static_cast<size_t>(size_) * sizeof(float));
            const float * source = query(row);
            for (int64_t i = 0; i < size_; ++i) {
                q_[row * size_ + i] = source[i] * queries_.scale;
            }
            result_.maxima[row] = kMinusInfinity;
            result_.sums[row]   = 0;
        }
        std::fill(result_.values, result_.values + rows_ * size_, 0.0f);
    }

    const float * query(int64_t row) const {
        return reinterpret_cast<const float *>(queries_.data +
                                               static_cast<size_t>(row / queries_.heads) * queries_.position_stride +
                                               static_cast<size_t>(row % queries_.heads) * queries_.head_stride);
    }

    static __mmask32 first(int64_t n) {
        return n >= 32 ? ~__mmask32{0} : static_cast<__mmask32>((uint32_t{1} << std::max<int64_t>(n, 0)) - 1);
    }

    const char * mask_at(int64_t position, int64_t cell) const {
        return cells_.mask + static_cast<size_t>(position) * cells_.mask_stride + 2 * static_cast<size_t>(cell);
    }

    // How many of the cells [cell, cell + n) there are up to the last that any position sees.
    int64_t visible(int64_t cell, int64_t n) const {
        if (cells_.mask == nullptr) {
            return n;
        }
        const __m512i hidden = _mm512_set1_epi16(static_cast<int16_t>(0xfc00));  // -infinity
        uint64_t      seen   = 0;
        for (int64_t position = 0; position < queries_.positions; ++position) {
            prefetch(mask_at(position, cell + kCells), 2 * kCells);
            for (int64_t i = 0; i < n; i += 32) {
                const __mmask32 some  = first(n - i);
                const __m512i   masks = _mm512_maskz_loadu_epi16(some, mask_at(position, cell + i));
                seen |= uint64_t{_mm512_mask_cmpneq_epi16_mask(some, masks, hidden)} << i;
            }
        }
        return seen == 0 ? 0 : 64 - __builtin_clzll(seen);
    }

    const Half * key(int64_t cell) const {
        return reinterpret_cast<const Half *>(cells_.keys + static_cast<size_t>(cell) * cells_.key_stride);
    }

    const Half * value(int64_t cell) const {
        return reinterpret_cast<const Half *>(cells_.values + static_cast<size_t>(cell) * cells_.value_stride);
    }

    // Rows are apart by those of other heads: what the processor itself would fetch ahead is not what comes next.
    static void prefetch(const void * row, size_t bytes) {
        for (size_t i = 0; i < bytes; i += 64) {
            _mm_prefetch(static_cast<const char *>(row) + i, _MM_HINT_T0);
        }
    }

    void prefetch(const Half * coordinates) const { prefetch(coordinates, static_cast<size_t>(size_) * sizeof(Half)); }

    // For few rows, keys are converted as they are needed and lanes added up at the end.
    template <int R = 1>
    void score_few(int64_t cell, int64_t n) {
        if constexpr (R < kRows) {
            if (rows_ > R) {
                return score_few<R + 1>(cell, n);
            }
        }
        for (int64_t c = 0; c < n; c += kLanes) {
            alignas(64) float sums[R][16][16];
            for (int64_t j = 0; j < kLanes; ++j) {
                prefetch(key(cell + c + j + kLanes));
                prefetch(value(cell + c + j));
                score_cell<R>(key(cell + std::min(c + j, n - 1)), sums, j);
            }
            for (int64_t row = 0; row < R; ++row) {
                _mm512_storeu_ps(scores_ + row * kCells + c, sums_of(sums[row]));
            }
        }
    }

    template <int R>
    void score_cell(const Half * key, float (*sums)[16][16], int64_t j) const {
        __m512 s[R] = {};
        for (int64_t i = 0; i < size_; i += kLanes) {
            const __m512 part = load(key + i);
            for (int64_t row = 0; row < R; ++row) {
                s[row] = _mm512_fmadd_ps(part, load(q_ + row * size_ + i), s[row]);
            }
        }
        for (int64_t row = 0; row < R; ++row) {
            _mm512_store_ps(sums[row][j], s[row]);
        }
    }

    // For many, converting and turning them round pays. Products are added up in the order of score_few(), so that a
    // position has the same scores whichever others are computed beside it.
    void score_many(int64_t cell, int64_t n) {
        load_keys(cell, n);
        for (int64_t c = 0; c < n; c += 2 * kLanes) {
            int64_t row = 0;
            for (; row + 2 <= rows_; row += 2) {
                score_rows<2>(row, c);
            }
            if (row < rows_) {
                score_rows<1>(row, c);
            }
        }
    }

    template <int R>
    struct Scores {
        __m512 of[R][2];

        friend Scores operator+(const Scores & a, const Scores & b) {
            Scores sum;
            for (int r = 0; r < R; ++r) {
                for (int j = 0; j < 2; ++j) {
                    sum.of[r][j] = _mm512_add_ps(a.of[r][j], b.of[r][j]);
                }
            }
            return sum;
        }
    };

    template <int R>
    void score_rows(int64_t row, int64_t c) {
        const float * q    = q_ + row * size_;
        const float * keys = keys_ + c;
        const auto    sum  = (four_lanes<R>(q, keys, 0) + four_lanes<R>(q, keys, 4)) +
                         (four_lanes<R>(q, keys, 8) + four_lanes<R>(q, keys, 12));
        for (int64_t r = 0; r < R; ++r) {
            for (int64_t j = 0; j < 2; ++j) {
                _mm512_storeu_ps(scores_ + (row + r) * kCells + c + j * kLanes, sum.of[r][j]);
            }
        }
    }

    template <int R>
    Scores<R> four_lanes(const float * q, const float * keys, int64_t lane) const {
        return (one_lane<R>(q, keys, lane) + one_lane<R>(q, keys, lane + 2)) +
               (one_lane<R>(q, keys, lane + 1) + one_lane<R>(q, keys, lane + 3));
    }

    // The products of every 16th coordinate.
    template <int R>
    Scores<R> one_lane(const float * q, const float * keys, int64_t lane) const {
        Scores<R> sum = {};
#pragma GCC unroll 4
        for (int64_t i = lane; i < size_; i += kLanes) {
            __m512 cells[2] = {load(keys + i * kCells), load(keys + i * kCells + kLanes)};
            asm("" : "+v"(cells[0]), "+v"(cells[1]));  // in registers: else each product loads them again
            for (int64_t r = 0; r < R; ++r) {
                const __m512 factor = _mm512_set1_ps(q[r * size_ + i]);
                for (int j = 0; j < 2; ++j) {
                    sum.of[r][j] = _mm512_fmadd_ps(cells[j], factor, sum.of[r][j]);
                }
            }
        }
        return sum;
    }

    template <class Value>
    void add_values(const Value * values, size_t stride, int64_t n) {
        int64_t i = 0;
        for (; i + 64 <= size_; i += 64) {
            add_values<4>(values, stride, n, i);
        }
        if (i + 32 <= size_) {
            add_values<2>(values, stride, n, i);
            i += 32;
        }
        if (i < size_) {
            add_values<1>(values, stride, n, i);
        }
    }

    template <int W, class Value>
    void add_values(const Value * values, size_t stride, int64_t n, int64_t i) {
        multiply<W>(rows_, scores_, kCells, values + i, stride, n, result_.values + i, size_);
    }

    void add_converted_values(int64_t cell, int64_t n) {
        load_values(cell, n);
        add_values(values_, static_cast<size_t>(size_) * sizeof(float), n);
    }

    // keys_[i][c] = coordinate i of cell c; cells from n on are zero.
    void load_keys(int64_t cell, int64_t n) {
        for (int64_t c = 0; c < kCells; c += kLanes) {
            for (int64_t i = 0; i < size_; i += kLanes) {
                __m512 block[16];
                for (int64_t j = 0; j < kLanes; ++j) {
                    block[j] = c + j < n ? load(key(cell + c + j) + i) : _mm512_setzero_ps();
                }
                transpose(block);
                for (int64_t j = 0; j < kLanes; ++j) {
                    _mm512_storeu_ps(keys_ + (i + j) * kCells + c, block[j]);
                }
            }
        }
    }

    void load_values(int64_t cell, int64_t n) {
        for (int64_t c = 0; c < n; ++c) {
            for (int64_t i = 0; i < size_; i += kLanes) {
                _mm512_storeu_ps(values_ + c * size_ + i, load(value(cell + c) + i));
            }
        }
    }

    // Scores -> weights relative to the maximum so far, to which what was attended before is brought.
    void weigh(int64_t cell, int64_t n) {
        for (int64_t position = 0; position < queries_.positions; ++position) {
            __m512 mask[4];
            for (int64_t j = 0; j < 4; ++j) {
                mask[j] = mask_of(position, cell, j, lanes(n, j));
            }
            for (int64_t head = 0; head < queries_.heads; ++head) {
                weigh_row(position * queries_.heads + head, mask, n);
            }
        }
    }

    // The lanes of a block's j-th register that are among the first n cells.
    static __mmask16 lanes(int64_t n, int64_t j) { return first_lanes(n - j * kLanes); }

    __m512 mask_of(int64_t position, int64_t cell, int64_t j, __mmask16 some) const {
        if (cells_.mask == nullptr) {
            return _mm512_setzero_ps();
        }
        return _mm512_cvtph_ps(_mm256_maskz_loadu_epi16(some, mask_at(position, cell + j * kLanes)));
    }

    void weigh_row(int64_t row, const __m512 (&mask)[4], int64_t n) {
        float * scores = scores_ + row * kCells;
        __m512  s[4];
        __m512  top = _mm512_set1_ps(result_.maxima[row]);
        for (int64_t j = 0; j < 4; ++j) {
            s[j] = _mm512_mask_add_ps(_mm512_set1_ps(kMinusInfinity), lanes(n, j), load(scores + j * kLanes), mask[j]);
            top  = _mm512_max_ps(top, s[j]);
        }
        const float before  = result_.maxima[row];
        const float maximum = _mm512_reduce_max_ps(top);
        // A row that has seen nothing yet has no maximum to be relative to: all its weights are zero.
        const __m512 base = _mm512_set1_ps(maximum == kMinusInfinity ? 0.0f : maximum);
        __m512       sum  = _mm512_setzero_ps();
        for (int64_t j = 0; j < 4; ++j) {
            const __m512 weight = exp_nonpositive(_mm512_sub_ps(s[j], base));
            sum                 = _mm512_add_ps(sum, weight);
            _mm512_storeu_ps(scores + j * kLanes, weight);
        }
        if (maximum > before) {
            const __m512 shrink = exp_nonpositive(_mm512_set1_ps(before - maximum));
            for (int64_t i = 0; i < size_; i += kLanes) {
                float * value = result_.values + row * size_ + i;
                _mm512_storeu_ps(value, _mm512_mul_ps(_mm512_loadu_ps(value), shrink));
            }
            result_.sums[row] *= _mm512_cvtss_f32(shrink);
            result_.maxima[row] = maximum;
        }
        result_.sums[row] += _mm512_reduce_add_ps(sum);
    }

    const Queries &  queries_;
    const Cells &    cells_;
    const Attended & result_;
    const int64_t    size_;
    const int64_t    rows_;
    float * const    q_;
    float * const    keys_;
    float * const    values_;
    float * const    scores_;
};

void attend(const Queries & queries, const Cells & cells, const Attended & result, float * scratch) {
    Tile(queries, cells, result, scratch).attend();
}

}  // namespace

const AttentionKernel kAvx512Attention{"avx512", attend};

}  // namespace inferno::kernels

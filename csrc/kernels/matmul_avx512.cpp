// AVX-512 with VNNI: Cascade Lake, Ice Lake, Zen 4 and later. Compiled for them; called only where they are.
#include <immintrin.h>

#include "matmul_kinds.h"
#include "matmul_tile.h"

namespace inferno::kernels {

namespace {

struct Avx512 {
    static constexpr int  kLanes      = 16;
    static constexpr bool kTwoPanels  = true;
    static constexpr bool kFourBlocks = true;
    using Int                        = __m512i;
    using Float                      = __m512;

    static Int load(const uint8_t * p) { return _mm512_loadu_si512(p); }
    static Int in_register(Int x) {
        __asm__("" : "+v"(x));
        return x;
    }
    static Int zero_int() { return _mm512_setzero_si512(); }
    static Int broadcast(const uint8_t * p) {
        int32_t word;
        std::memcpy(&word, p, sizeof word);
        return _mm512_set1_epi32(word);
    }
    static Int dot(Int sum, Int u, Int s) { return _mm512_dpbusd_epi32(sum, u, s); }
    template <int n>
    static Int shift(Int x) {
        return n > 0 ? _mm512_slli_epi16(x, n) : n < 0 ? _mm512_srli_epi16(x, -n) : x;
    }
    static Int bits(Int x, int mask) { return _mm512_and_si512(x, _mm512_set1_epi8(static_cast<int8_t>(mask))); }
    static Int either(Int x, Int y) { return _mm512_or_si512(x, y); }

    static Float zero() { return _mm512_setzero_ps(); }
    static Float halves(const uint8_t * p) {
        return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i *>(p)));
    }
    static Float bytes(const uint8_t * p) {
        return to_float(_mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i *>(p))));
    }
    static Float signed_bytes(const uint8_t * p) {
        return to_float(_mm512_cvtepi8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i *>(p))));
    }
    static Float set(float x) { return _mm512_set1_ps(x); }
    static Float to_float(Int x) { return _mm512_cvtepi32_ps(x); }
    static Float broadcast_float(const uint8_t * p) {
        float value;
        std::memcpy(&value, p, sizeof value);
        return _mm512_set1_ps(value);
    }
    static Float multiply(Float a, Float b) { return _mm512_mul_ps(a, b); }
    static Float fma(Float a, Float b, Float c) { return _mm512_fmadd_ps(a, b, c); }
    static void  store(float * p, Float x, int n) {
        _mm512_mask_storeu_ps(p, static_cast<__mmask16>((1u << n) - 1), x);
    }

    static float through_half(float x) {
        return _mm_cvtss_f32(_mm_cvtph_ps(_mm_cvtps_ph(_mm_set_ss(x), _MM_FROUND_TO_NEAREST_INT)));
    }

    // The four registers' largest lanes, in their order.
    static __m128 largest_of(const Float (&x)[4]) {
        __m128 four[4];
        for (int i = 0; i < 4; ++i) {
            const __m256 half = _mm256_max_ps(_mm512_castps512_ps256(x[i]), _mm512_extractf32x8_ps(x[i], 1));
            four[i]           = _mm_max_ps(_mm256_castps256_ps128(half), _mm256_extractf128_ps(half, 1));
        }
        _MM_TRANSPOSE4_PS(four[0], four[1], four[2], four[3]);
        return _mm_max_ps(_mm_max_ps(four[0], four[1]), _mm_max_ps(four[2], four[3]));
    }
    static __m128i sums_of(const Int (&x)[4]) {
        __m128i four[4];
        for (int i = 0; i < 4; ++i) {
            const __m256i half = _mm256_add_epi32(_mm512_castsi512_si256(x[i]), _mm512_extracti32x8_epi32(x[i], 1));
            four[i]            = _mm_add_epi32(_mm256_castsi256_si128(half), _mm256_extracti128_si256(half, 1));
        }
        const __m128i a = _mm_hadd_epi32(four[0], four[1]), b = _mm_hadd_epi32(four[2], four[3]);
        return _mm_hadd_epi32(a, b);
    }
    static __m128 through_half(__m128 x) { return _mm_cvtph_ps(_mm_cvtps_ph(x, _MM_FROUND_TO_NEAREST_INT)); }

    // What quantize_block() of matmul_tile.h does, of four blocks of 32 columns at once: most of it is of one number each.
    static void quantize_four(const Format & format, const float * x, uint8_t * tile, int r, int n_rows) {
        const auto block_bytes = tile_bytes(format, n_rows, kUnit);
        Float      tops[4];
        for (int b = 0; b < 4; ++b) {
            tops[b] = _mm512_max_ps(_mm512_abs_ps(_mm512_loadu_ps(x + 32 * b)), _mm512_abs_ps(_mm512_loadu_ps(x + 32 * b + 16)));
        }
        const __m128 top   = largest_of(tops);
        const __m128 some  = _mm_cmpneq_ps(top, _mm_setzero_ps());
        const __m128 scale = _mm_and_ps(some, _mm_div_ps(_mm_set1_ps(127.0f), top));
        const __m128 exact = _mm_div_ps(top, _mm_set1_ps(127.0f));
        alignas(16) float scales[4];
        _mm_store_ps(scales, scale);
        Int sums[4];
        for (int b = 0; b < 4; ++b) {
            sums[b] = quantized<32>(x + 32 * b, scales[b], tile + b * block_bytes + 32 * static_cast<size_t>(r));
        }
        const __m128i     sum    = sums_of(sums);
        const __m128      scaled = through_half(_mm_mul_ps(exact, _mm_cvtepi32_ps(sum)));
        const __m128i     offset = _mm_mullo_epi32(sum, _mm_set1_epi32(-format.zero_point));
        alignas(16) float deltas[4], last[4];
        _mm_store_ps(deltas, through_half(exact));
        _mm_store_ps(last, format.has_min() ? scaled : _mm_castsi128_ps(offset));
        for (int b = 0; b < 4; ++b) {
            uint8_t * behind = tile + b * block_bytes + static_cast<size_t>(n_rows) * 32 + 4 * static_cast<size_t>(r);
            std::memcpy(behind, deltas + b, 4);
            std::memcpy(behind + static_cast<size_t>(n_rows) * 4, last + b, 4);
        }
    }
    // n columns; their sums, lane by lane.
    template <int64_t n>
    static Int quantized(const float * x, float scale, uint8_t * quants) {
        Int sum = zero_int();
        for (int64_t i = 0; i < n; i += 16) {
            const Int number = _mm512_cvtps_epi32(_mm512_mul_ps(_mm512_loadu_ps(x + i), set(scale)));
            // What is no number becomes the least integer, which must not get into the sum.
            const Int whole = _mm512_max_epi32(number, _mm512_set1_epi32(-128));
            _mm_storeu_si128(reinterpret_cast<__m128i *>(quants + i), _mm512_cvtsepi32_epi8(whole));
            sum = _mm512_add_epi32(sum, whole);
        }
        return sum;
    }

    static float largest(const float * x, int64_t n) {
        Float top = zero();
        for (int64_t i = 0; i < n; i += 16) {
            top = _mm512_max_ps(top, _mm512_abs_ps(_mm512_loadu_ps(x + i)));
        }
        return _mm512_reduce_max_ps(top);
    }
    template <int64_t n>
    static int32_t quantize(const float * x, float scale, uint8_t * quants) {
        return _mm512_reduce_add_epi32(quantized<n>(x, scale, quants));
    }
};

bool supports(const Format &) {
    return true;
}

}  // namespace

const Kernels kAvx512Kernels{"avx512_vnni", quantize<Avx512>, multiply<Avx512>, supports};

}  // namespace inferno::kernels

// 256-bit registers: what AVX2 and AVX-VNNI kernels share.
#pragma once

#include <immintrin.h>

#include <cstdint>
#include <cstring>

namespace inferno::kernels {
namespace {  // each file that includes this is compiled for another processor

struct Isa256 {
    static constexpr int kLanes = 8;
    using Int                   = __m256i;
    using Float                 = __m256;

    static Int load(const uint8_t * p) { return _mm256_loadu_si256(reinterpret_cast<const __m256i *>(p)); }
    static Int zero_int() { return _mm256_setzero_si256(); }
    static Int broadcast(const uint8_t * p) {
        int32_t word;
        std::memcpy(&word, p, sizeof word);
        return _mm256_set1_epi32(word);
    }
    static Int low_halves(Int x) { return _mm256_and_si256(x, _mm256_set1_epi8(15)); }
    static Int high_halves(Int x) { return _mm256_and_si256(_mm256_srli_epi16(x, 4), _mm256_set1_epi8(15)); }

    static Float zero() { return _mm256_setzero_ps(); }
    static Float halves(const uint8_t * p) {
        return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i *>(p)));
    }
    static Float to_float(Int x) { return _mm256_cvtepi32_ps(x); }
    static Float broadcast_float(const uint8_t * p) {
        float value;
        std::memcpy(&value, p, sizeof value);
        return _mm256_set1_ps(value);
    }
    static Float multiply(Float a, Float b) { return _mm256_mul_ps(a, b); }
    static Float fma(Float a, Float b, Float c) { return _mm256_fmadd_ps(a, b, c); }
    static void  store(float * p, Float x, int n) {
        if (n == kLanes) {
            return _mm256_storeu_ps(p, x);
        }
        const Int lane = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
        _mm256_maskstore_ps(p, _mm256_cmpgt_epi32(_mm256_set1_epi32(n), lane), x);
    }

    static float through_half(float x) {
        return _mm_cvtss_f32(_mm_cvtph_ps(_mm_cvtps_ph(_mm_set_ss(x), _MM_FROUND_TO_NEAREST_INT)));
    }

    static int32_t quantize_block(const float * x, uint8_t * quants, float & delta) {
        const Float magnitude = _mm256_castsi256_ps(_mm256_set1_epi32(0x7fffffff));
        Float       parts[4];
        Float       largest = zero();
        for (int i = 0; i < 4; ++i) {
            parts[i] = _mm256_loadu_ps(x + 8 * i);
            largest  = _mm256_max_ps(largest, _mm256_and_ps(parts[i], magnitude));
        }
        __m128 four = _mm_max_ps(_mm256_castps256_ps128(largest), _mm256_extractf128_ps(largest, 1));
        four        = _mm_max_ps(four, _mm_movehl_ps(four, four));
        four        = _mm_max_ss(four, _mm_movehdup_ps(four));
        const float top   = _mm_cvtss_f32(four);
        delta             = top / 127.0f;
        const Float scale = _mm256_set1_ps(top != 0.0f ? 127.0f / top : 0.0f);
        Int         whole[4];
        Int         sum = zero_int();
        for (int i = 0; i < 4; ++i) {
            whole[i] = _mm256_cvtps_epi32(_mm256_mul_ps(parts[i], scale));
            sum      = _mm256_add_epi32(sum, whole[i]);
        }
        // Packing works within halves of the registers; the permutation puts the groups of four back in order.
        const Int packed = _mm256_packs_epi16(_mm256_packs_epi32(whole[0], whole[1]),
                                              _mm256_packs_epi32(whole[2], whole[3]));
        _mm256_storeu_si256(reinterpret_cast<__m256i *>(quants),
                            _mm256_permutevar8x32_epi32(packed, _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7)));
        __m128i sums = _mm_add_epi32(_mm256_castsi256_si128(sum), _mm256_extracti128_si256(sum, 1));
        sums         = _mm_add_epi32(sums, _mm_shuffle_epi32(sums, 0x4e));
        sums         = _mm_add_epi32(sums, _mm_shuffle_epi32(sums, 0xb1));
        return _mm_cvtsi128_si32(sums);
    }
};

}  // namespace
}  // namespace inferno::kernels

// 256-bit registers: what AVX2 and AVX-VNNI kernels share.
#pragma once

#include <immintrin.h>

#include <cstdint>
#include <cstring>

namespace inferno::kernels {
namespace {  // each file that includes this is compiled for another processor

struct Isa256 {
    static constexpr int  kLanes      = 8;
    static constexpr bool kTwoPanels  = false;
    static constexpr bool kFourBlocks = false;
    using Int                        = __m256i;
    using Float                      = __m256;

    static Int load(const uint8_t * p) { return _mm256_loadu_si256(reinterpret_cast<const __m256i *>(p)); }
    static Int in_register(Int x) {
        __asm__("" : "+x"(x));
        return x;
    }
    static Int zero_int() { return _mm256_setzero_si256(); }
    static Int broadcast(const uint8_t * p) {
        int32_t word;
        std::memcpy(&word, p, sizeof word);
        return _mm256_set1_epi32(word);
    }
    template <int n>
    static Int shift(Int x) {
        return n > 0 ? _mm256_slli_epi16(x, n) : n < 0 ? _mm256_srli_epi16(x, -n) : x;
    }
    static Int bits(Int x, int mask) { return _mm256_and_si256(x, _mm256_set1_epi8(static_cast<int8_t>(mask))); }
    static Int either(Int x, Int y) { return _mm256_or_si256(x, y); }

    static Float zero() { return _mm256_setzero_ps(); }
    static Float halves(const uint8_t * p) {
        return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i *>(p)));
    }
    static Float bytes(const uint8_t * p) {
        return to_float(_mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i *>(p))));
    }
    static Float signed_bytes(const uint8_t * p) {
        return to_float(_mm256_cvtepi8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i *>(p))));
    }
    static Float set(float x) { return _mm256_set1_ps(x); }
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

    static float largest(const float * x, int64_t n) {
        const Float magnitude = _mm256_castsi256_ps(_mm256_set1_epi32(0x7fffffff));
        Float       top       = zero();
        for (int64_t i = 0; i < n; i += 8) {
            top = _mm256_max_ps(top, _mm256_and_ps(_mm256_loadu_ps(x + i), magnitude));
        }
        __m128 four = _mm_max_ps(_mm256_castps256_ps128(top), _mm256_extractf128_ps(top, 1));
        four        = _mm_max_ps(four, _mm_movehl_ps(four, four));
        return _mm_cvtss_f32(_mm_max_ss(four, _mm_movehdup_ps(four)));
    }

    template <int64_t n>
    static int32_t quantize(const float * x, float scale, uint8_t * quants) {
        __m128i sum = _mm_setzero_si128();
        for (int64_t i = 0; i < n; i += 16) {
            const Int low   = _mm256_cvtps_epi32(_mm256_mul_ps(_mm256_loadu_ps(x + i), set(scale)));
            const Int high  = _mm256_cvtps_epi32(_mm256_mul_ps(_mm256_loadu_ps(x + i + 8), set(scale)));
            const Int words = _mm256_permute4x64_epi64(_mm256_packs_epi32(low, high), 0xd8);
            _mm_storeu_si128(reinterpret_cast<__m128i *>(quants + i),
                             _mm_packs_epi16(_mm256_castsi256_si128(words), _mm256_extracti128_si256(words, 1)));
            const Int both = _mm256_add_epi32(low, high);
            sum = _mm_add_epi32(sum, _mm_add_epi32(_mm256_castsi256_si128(both), _mm256_extracti128_si256(both, 1)));
        }
        sum = _mm_add_epi32(sum, _mm_shuffle_epi32(sum, 0x4e));
        return _mm_cvtsi128_si32(_mm_add_epi32(sum, _mm_shuffle_epi32(sum, 0xb1)));
    }
};

}  // namespace
}  // namespace inferno::kernels

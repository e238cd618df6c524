// RMS normalization with AVX-512.
#include <immintrin.h>

#include <cmath>

#include "float_kinds.h"
#include "lanes_avx512.h"

namespace inferno::kernels {

namespace {

double sum_of_squares(const float * x, int64_t n) {
    __m512d sums[2] = {_mm512_setzero_pd(), _mm512_setzero_pd()};
    for (int64_t i = 0; i < n; i += 16) {
        const __m512 part   = _mm512_maskz_loadu_ps(first_lanes(n - i), x + i);
        const __m512 square = _mm512_mul_ps(part, part);
        sums[0] = _mm512_add_pd(sums[0], _mm512_cvtps_pd(_mm512_castps512_ps256(square)));
        sums[1] = _mm512_add_pd(sums[1], _mm512_cvtps_pd(_mm512_extractf32x8_ps(square, 1)));
    }
    return _mm512_reduce_add_pd(_mm512_add_pd(sums[0], sums[1]));
}

}  // namespace

void rms_norm_avx512(const float * x, const float * w, float * y, int64_t n, float epsilon) {
    const auto   mean  = static_cast<float>(sum_of_squares(x, n) / static_cast<double>(n));
    const __m512 scale = _mm512_set1_ps(1.0f / std::sqrt(mean + epsilon));
    for (int64_t i = 0; i < n; i += 16) {
        const __mmask16 some   = first_lanes(n - i);
        const __m512    scaled = _mm512_mul_ps(_mm512_maskz_loadu_ps(some, x + i), scale);
        _mm512_mask_storeu_ps(y + i, some, _mm512_mul_ps(scaled, _mm512_maskz_loadu_ps(some, w + i)));
    }
}

}  // namespace inferno::kernels

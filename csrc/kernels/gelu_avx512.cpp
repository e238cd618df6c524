// GELU with AVX-512.
#include "float_kinds.h"
#include "exp_avx512.h"
#include "lanes_avx512.h"

namespace inferno::kernels {

namespace {

// x * sigmoid(2z) with z = sqrt(2/pi) * (x + 0.044715 x^3), which is x/2 * (1 + tanh(z)).
__m512 gelu(__m512 x) {
    const __m512 cube   = _mm512_mul_ps(_mm512_mul_ps(x, x), x);
    const __m512 twice  = _mm512_mul_ps(_mm512_set1_ps(1.5957691216057308f),
                                        _mm512_fmadd_ps(_mm512_set1_ps(0.044715f), cube, x));
    const __m512 small  = exp_nonpositive(_mm512_sub_ps(_mm512_setzero_ps(), _mm512_abs_ps(twice)));
    const __m512 one    = _mm512_set1_ps(1.0f);
    // sigmoid(t) is 1 / (1 + e^-t), and for negative t e^t / (1 + e^t): the exponential never overflows.
    const __mmask16 negative = _mm512_cmp_ps_mask(twice, _mm512_setzero_ps(), _CMP_LT_OQ);
    const __m512    above    = _mm512_mask_mov_ps(one, negative, small);
    return _mm512_mul_ps(x, _mm512_div_ps(above, _mm512_add_ps(one, small)));
}

}  // namespace

void gelu_avx512(const float * x, float * y, int64_t n) {
    for (int64_t i = 0; i < n; i += 16) {
        const __mmask16 some = first_lanes(n - i);
        _mm512_mask_storeu_ps(y + i, some, gelu(_mm512_maskz_loadu_ps(some, x + i)));
    }
}

}  // namespace inferno::kernels

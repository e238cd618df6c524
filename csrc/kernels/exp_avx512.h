// The exponential function with AVX-512.
#pragma once

#include <immintrin.h>

namespace inferno::kernels {
namespace {  // each file that includes this is compiled for such processors

// exp(x) for x <= 0, relative error below 2e-7; 0 for -infinity. 2^n * 2^f with |f| <= 1/2 and a polynomial for 2^f.
__m512 exp_nonpositive(__m512 x) {
    const __m512 scaled = _mm512_mul_ps(_mm512_max_ps(x, _mm512_set1_ps(-200.0f)), _mm512_set1_ps(1.44269504088896341f));
    const __m512 whole  = _mm512_roundscale_ps(scaled, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    const __m512 f      = _mm512_sub_ps(scaled, whole);
    __m512       p      = _mm512_set1_ps(1.535336188319500e-4f);
    p                   = _mm512_fmadd_ps(p, f, _mm512_set1_ps(1.339887440266574e-3f));
    p                   = _mm512_fmadd_ps(p, f, _mm512_set1_ps(9.618437357674640e-3f));
    p                   = _mm512_fmadd_ps(p, f, _mm512_set1_ps(5.550332471162809e-2f));
    p                   = _mm512_fmadd_ps(p, f, _mm512_set1_ps(2.402264791363012e-1f));
    p                   = _mm512_fmadd_ps(p, f, _mm512_set1_ps(6.931472028550421e-1f));
    p                   = _mm512_fmadd_ps(p, f, _mm512_set1_ps(1.0f));
    return _mm512_scalef_ps(p, whole);
}

}  // namespace
}  // namespace inferno::kernels

// AVX2: Haswell, Zen and later.
#include "isa_avx2.h"
#include "matmul_kinds.h"
#include "matmul_tile.h"

namespace inferno::kernels {

namespace {

struct Avx2 : Isa256 {
    // The sum of two neighbouring products must fit into 16 signed bits: u must be at most 128.
    static Int dot(Int sum, Int u, Int s) {
        return _mm256_add_epi32(sum, _mm256_madd_epi16(_mm256_maddubs_epi16(u, s), _mm256_set1_epi16(1)));
    }
};

bool supports(const Format & format) {
    return format.low_bits == 4;
}

}  // namespace

const Kernels kAvx2Kernels{"avx2", quantize<Avx2>, multiply<Avx2>, supports};

}  // namespace inferno::kernels

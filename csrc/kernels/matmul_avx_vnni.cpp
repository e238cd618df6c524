// AVX-VNNI: processors with 256-bit dot products, Alder Lake and later.
#include "isa_avx2.h"
#include "matmul_kinds.h"
#include "matmul_tile.h"

namespace inferno::kernels {

namespace {

struct AvxVnni : Isa256 {
    static Int dot(Int sum, Int u, Int s) { return _mm256_dpbusd_avx_epi32(sum, u, s); }
};

bool supports(const Format &) {
    return true;
}

}  // namespace

const Kernels kAvxVnniKernels{"avx_vnni", quantize<AvxVnni>, multiply<AvxVnni>, supports};

}  // namespace inferno::kernels

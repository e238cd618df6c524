// Which lanes of a register are used.
#pragma once

#include <immintrin.h>

#include <cstdint>

namespace inferno::kernels {
namespace {  // each file that includes this is compiled for such processors

// The first n of 16; all of them for more, none for less than one.
inline __mmask16 first_lanes(int64_t n) {
    return static_cast<__mmask16>(n >= 16 ? 0xffff : n > 0 ? (1u << n) - 1 : 0);
}

}  // namespace
}  // namespace inferno::kernels

// Compiled ahead of ggml's AMX kernels. In GCC's headers (12 for one) `_tile_loadconfig` says that `ldtilecfg` reads 8
// bytes; it reads 64. The optimiser then drops the stores that fill the rest of the configuration, and the instruction
// faults on what it finds there instead: a segmentation fault in the first matrix product on a CPU with AMX.
#pragma once

#if defined(__AMX_TILE__) && defined(__GNUC__) && !defined(__clang__)
#include <immintrin.h>

inline void inferno_tile_loadconfig(const void * config) {
    __asm__ volatile("ldtilecfg\t%X0" ::"m"(*static_cast<const char(*)[64]>(config)));
}
#define _tile_loadconfig inferno_tile_loadconfig
#endif

// ggml's backends: linked into this module or, in a portable build, modules in `lib/` beside it. Of those with CPU code
// there is one for each kind of processor. Nothing is loaded from elsewhere, whatever the environment says.
#pragma once

#include <string>

struct InfernoCpuInternals;

namespace inferno {

// Which CPU code runs here: of a portable build the best variant's name, "haswell" for one; "native" when it was
// compiled for the machine that built it, else "fixed". Throws Error(service_unavailable) when no variant runs on this
// processor. Loads nothing for good.
std::string cpu_code();

// Makes all backends known to ggml, and answers with what our kernels need of the CPU's. Throws as cpu_code() does, and
// then nothing is loaded. Once per process.
const InfernoCpuInternals & load_backends();

}  // namespace inferno

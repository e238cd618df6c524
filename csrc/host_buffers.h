// ggml's buffers in host memory.
#pragma once

namespace inferno {

// From now on what is set to zero as a whole takes no memory until it is written: a KV cache is, before it is used, and
// most of one is not used for long. Where the system cannot do that, zeros are written as before. Once per process.
void leave_zeros_to_the_system();

}  // namespace inferno

// How a model's file gets into memory: the option's words -> llama.cpp's, and what locking needs.
#pragma once

#include <llama.h>

#include <cstdint>
#include <string>

namespace inferno {

// llama.cpp's name for `mode`, for the load that follows; also says whether packed weights are to be locked. Throws
// Error(invalid_request, field "load_mode") when the mode locks memory and this process may lock less than `bytes` more, the
// size of the weights: llama.cpp would warn and go on unlocked.
llama_load_mode prepare_load(const std::string & mode, uint64_t bytes);

bool locks_memory(const std::string & mode);

}  // namespace inferno

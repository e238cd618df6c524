// How a model's file gets into memory: the option's words -> llama.cpp's, and what locking needs.
#pragma once

#include <llama.h>

#include <cstdint>
#include <string>

namespace inferno {

// REQUIRES: one of kLoadModes.
llama_load_mode load_mode_of(const std::string & name);

// Throws Error(invalid_request, field "load_mode") when the mode locks memory and this process may lock less than
// `bytes`: llama.cpp would warn and go on unlocked.
void check_lockable(const std::string & mode, uint64_t bytes);

}  // namespace inferno

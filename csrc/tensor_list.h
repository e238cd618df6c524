// The tensors of a model, from the headers of all its parts.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace inferno {

struct TensorInfo {
    std::string          name;
    std::string          type;   // as ggml names it: "f32", "q4_K"
    std::vector<int64_t> shape;  // the length of a row first
    uint64_t             bytes = 0;
};

// In the order of the file. Throws Error(invalid_request) when a part is missing or no GGUF file.
std::vector<TensorInfo> list_tensors(const std::string & path);

}  // namespace inferno

// The headers of GGUF files, and the tensors of a model from the headers of all its parts.
#pragma once

#include <gguf.h>

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

namespace inferno {

struct FreeGguf {
    void operator()(gguf_context * context) const { gguf_free(context); }
};
struct FreeGgml {
    void operator()(ggml_context * context) const { ggml_free(context); }
};

// Everything before the tensors' data.
struct GgufHeader {
    std::unique_ptr<gguf_context, FreeGguf> keys;
    std::unique_ptr<ggml_context, FreeGgml> tensors;
};

struct TensorInfo {
    std::string          name;
    std::string          type;   // as ggml names it: "f32", "q4_K"
    std::vector<int64_t> shape;  // the length of a row first
    uint64_t             bytes = 0;
};

// Throws Error(invalid_request) for what is no GGUF file.
GgufHeader read_header(const std::string & path);

// The files of a model whose (first) file `path` is.
std::vector<std::string> list_parts(const std::string & path, const GgufHeader & header);

// In the order of the file; `header` is that of `path`, of a split model the first part. Throws like read_header() for the
// other parts.
std::vector<TensorInfo> list_tensors(const std::string & path, const GgufHeader & header);

}  // namespace inferno

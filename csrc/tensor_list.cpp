#include "tensor_list.h"

#include <llama.h>

#include <array>

#include "error.h"
#include "llama_loading.h"

namespace inferno {

namespace {

constexpr size_t kMaxPath = 4096;

void append(const GgufHeader & header, std::vector<TensorInfo> & result) {
    for (ggml_tensor * tensor = ggml_get_first_tensor(header.tensors.get()); tensor != nullptr;
         tensor               = ggml_get_next_tensor(header.tensors.get(), tensor)) {
        result.push_back({ggml_get_name(tensor), ggml_type_name(tensor->type),
                          std::vector<int64_t>(tensor->ne, tensor->ne + ggml_n_dims(tensor)), ggml_nbytes(tensor)});
    }
}

int32_t n_parts(const gguf_context * keys) {
    const int64_t id = gguf_find_key(keys, "split.count");
    return id >= 0 && gguf_get_kv_type(keys, id) == GGUF_TYPE_UINT16 ? gguf_get_val_u16(keys, id) : 1;
}

std::vector<std::string> other_parts(const std::string & path, int32_t count) {
    std::vector<std::string>   result;
    std::array<char, kMaxPath> prefix{};
    if (count < 2 || llama_split_prefix(prefix.data(), prefix.size(), path.c_str(), 0, count) <= 0) {
        return result;
    }
    for (int32_t part = 1; part < count; ++part) {
        std::array<char, kMaxPath> name{};
        llama_split_path(name.data(), name.size(), prefix.data(), part, count);
        result.emplace_back(name.data());
    }
    return result;
}

}  // namespace

GgufHeader read_header(const std::string & path) {
    start_llama();  // for its messages to go where ours go
    ggml_context * tensors = nullptr;
    GgufHeader     header;
    header.keys.reset(gguf_init_from_file(path.c_str(), {true, &tensors}));
    header.tensors.reset(tensors);
    if (!header.keys || !header.tensors) {
        throw Error(ErrorCode::invalid_request, "The file is not a valid GGUF model.", "model");
    }
    return header;
}

std::vector<std::string> list_parts(const std::string & path, const GgufHeader & header) {
    std::vector<std::string> result = other_parts(path, n_parts(header.keys.get()));
    result.insert(result.begin(), path);
    return result;
}

std::vector<TensorInfo> list_tensors(const std::string & path, const GgufHeader & header) {
    std::vector<TensorInfo> result;
    append(header, result);
    for (const std::string & part : other_parts(path, n_parts(header.keys.get()))) {
        append(read_header(part), result);
    }
    return result;
}

}  // namespace inferno

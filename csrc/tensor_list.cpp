#include "tensor_list.h"

#include <gguf.h>
#include <llama.h>

#include <array>
#include <memory>

#include "error.h"
#include "llama_loading.h"

namespace inferno {

namespace {

struct FreeGguf {
    void operator()(gguf_context * context) const { gguf_free(context); }
};
struct FreeGgml {
    void operator()(ggml_context * context) const { ggml_free(context); }
};

constexpr size_t kMaxPath = 4096;

// The number of parts that the file says there are.
int32_t add_tensors(const std::string & path, std::vector<TensorInfo> & result) {
    ggml_context *                                raw_tensors = nullptr;
    const gguf_init_params                        params{true, &raw_tensors};
    const std::unique_ptr<gguf_context, FreeGguf> gguf(gguf_init_from_file(path.c_str(), params));
    const std::unique_ptr<ggml_context, FreeGgml> tensors(raw_tensors);
    if (!gguf || !tensors) {
        throw Error(ErrorCode::invalid_request, "The file is not a valid GGUF model.", "model");
    }
    for (ggml_tensor * tensor = ggml_get_first_tensor(tensors.get()); tensor != nullptr;
         tensor               = ggml_get_next_tensor(tensors.get(), tensor)) {
        result.push_back({ggml_get_name(tensor), ggml_type_name(tensor->type),
                          std::vector<int64_t>(tensor->ne, tensor->ne + ggml_n_dims(tensor)), ggml_nbytes(tensor)});
    }
    const int64_t id = gguf_find_key(gguf.get(), "split.count");
    return id >= 0 && gguf_get_kv_type(gguf.get(), id) == GGUF_TYPE_UINT16 ? gguf_get_val_u16(gguf.get(), id) : 1;
}

}  // namespace

std::vector<TensorInfo> list_tensors(const std::string & path) {
    start_llama();  // for its messages to go where ours go
    std::vector<TensorInfo>    result;
    const int32_t              count = add_tensors(path, result);
    std::array<char, kMaxPath> prefix{};
    if (count > 1 && llama_split_prefix(prefix.data(), prefix.size(), path.c_str(), 0, count) > 0) {
        for (int32_t part = 1; part < count; ++part) {
            std::array<char, kMaxPath> name{};
            llama_split_path(name.data(), name.size(), prefix.data(), part, count);
            add_tensors(name.data(), result);
        }
    }
    return result;
}

}  // namespace inferno

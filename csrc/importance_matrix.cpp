#include "importance_matrix.h"

#include <gguf.h>

#include <memory>
#include <string_view>

#include "error.h"
#include "tensor_list.h"

namespace inferno {

namespace {

constexpr std::string_view kSums   = ".in_sum2";
constexpr std::string_view kCounts = ".counts";

[[noreturn]] void refuse() {
    throw Error(ErrorCode::invalid_request, "The file is not an importance matrix in GGUF form.", "imatrix");
}

bool is_imatrix(const gguf_context * gguf) {
    const int64_t id = gguf_find_key(gguf, "general.type");
    return id >= 0 && gguf_get_kv_type(gguf, id) == GGUF_TYPE_STRING &&
           std::string_view(gguf_get_val_str(gguf, id)) == "imatrix";
}

bool ends_with(std::string_view text, std::string_view end) {
    return text.size() > end.size() && text.substr(text.size() - end.size()) == end;
}

// Sums of squares, a row for each expert, by the counts of what was added up. Inputs that none came through count alike.
std::vector<float> means_of(const ggml_tensor * sums, const ggml_tensor * counts) {
    if (sums->type != GGML_TYPE_F32 || counts == nullptr || counts->type != GGML_TYPE_F32 ||
        ggml_nelements(counts) != ggml_nrows(sums)) {
        refuse();
    }
    const auto *       sum   = static_cast<const float *>(sums->data);
    const auto *       count = static_cast<const float *>(counts->data);
    std::vector<float> means;
    for (int64_t row = 0; row < ggml_nrows(sums); ++row) {
        for (int64_t i = 0; i < sums->ne[0]; ++i) {
            means.push_back(count[row] > 0 ? sum[row * sums->ne[0] + i] / count[row] : 1.0F);
        }
    }
    return means;
}

}  // namespace

ImportanceMatrix::ImportanceMatrix(const std::string & path) {
    ggml_context *                                raw_tensors = nullptr;
    const std::unique_ptr<gguf_context, FreeGguf> gguf(gguf_init_from_file(path.c_str(), {false, &raw_tensors}));
    const std::unique_ptr<ggml_context, FreeGgml> tensors(raw_tensors);
    if (!gguf || !tensors || !is_imatrix(gguf.get())) {
        refuse();
    }
    for (ggml_tensor * tensor = ggml_get_first_tensor(tensors.get()); tensor != nullptr;
         tensor               = ggml_get_next_tensor(tensors.get(), tensor)) {
        const std::string_view name = ggml_get_name(tensor);
        if (ends_with(name, kSums)) {
            const std::string of(name.substr(0, name.size() - kSums.size()));
            const std::string counts = of + std::string(kCounts);
            means_[of]               = means_of(tensor, ggml_get_tensor(tensors.get(), counts.c_str()));
        }
    }
    if (means_.empty()) {
        refuse();
    }
    for (const auto & [name, means] : means_) {
        rows_.push_back({name.c_str(), means.data(), means.size()});
    }
    rows_.push_back({nullptr, nullptr, 0});
}

}  // namespace inferno

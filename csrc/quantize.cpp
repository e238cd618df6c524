#include "quantize.h"

#include <llama.h>

#include <algorithm>
#include <array>
#include <cctype>
#include <cstdio>
#include <cstring>
#include <optional>
#include <utility>

#include "error.h"
#include "importance_matrix.h"
#include "llama_loading.h"

namespace inferno {

namespace {

constexpr const char * kCopy = "COPY";

constexpr std::array<std::pair<const char *, llama_ftype>, 39> kTypes = {{
    {"F32", LLAMA_FTYPE_ALL_F32},
    {"F16", LLAMA_FTYPE_MOSTLY_F16},
    {"BF16", LLAMA_FTYPE_MOSTLY_BF16},
    {"Q8_0", LLAMA_FTYPE_MOSTLY_Q8_0},
    {"Q6_K", LLAMA_FTYPE_MOSTLY_Q6_K},
    {"Q5_K", LLAMA_FTYPE_MOSTLY_Q5_K_M},
    {"Q5_K_M", LLAMA_FTYPE_MOSTLY_Q5_K_M},
    {"Q5_K_S", LLAMA_FTYPE_MOSTLY_Q5_K_S},
    {"Q5_1", LLAMA_FTYPE_MOSTLY_Q5_1},
    {"Q5_0", LLAMA_FTYPE_MOSTLY_Q5_0},
    {"Q4_K", LLAMA_FTYPE_MOSTLY_Q4_K_M},
    {"Q4_K_M", LLAMA_FTYPE_MOSTLY_Q4_K_M},
    {"Q4_K_S", LLAMA_FTYPE_MOSTLY_Q4_K_S},
    {"Q4_1", LLAMA_FTYPE_MOSTLY_Q4_1},
    {"Q4_0", LLAMA_FTYPE_MOSTLY_Q4_0},
    {"IQ4_NL", LLAMA_FTYPE_MOSTLY_IQ4_NL},
    {"IQ4_XS", LLAMA_FTYPE_MOSTLY_IQ4_XS},
    {"MXFP4_MOE", LLAMA_FTYPE_MOSTLY_MXFP4_MOE},
    {"Q3_K", LLAMA_FTYPE_MOSTLY_Q3_K_M},
    {"Q3_K_L", LLAMA_FTYPE_MOSTLY_Q3_K_L},
    {"Q3_K_M", LLAMA_FTYPE_MOSTLY_Q3_K_M},
    {"Q3_K_S", LLAMA_FTYPE_MOSTLY_Q3_K_S},
    {"IQ3_M", LLAMA_FTYPE_MOSTLY_IQ3_M},
    {"IQ3_S", LLAMA_FTYPE_MOSTLY_IQ3_S},
    {"IQ3_XS", LLAMA_FTYPE_MOSTLY_IQ3_XS},
    {"IQ3_XXS", LLAMA_FTYPE_MOSTLY_IQ3_XXS},
    {"Q2_K", LLAMA_FTYPE_MOSTLY_Q2_K},
    {"Q2_K_S", LLAMA_FTYPE_MOSTLY_Q2_K_S},
    {"Q2_0", LLAMA_FTYPE_MOSTLY_Q2_0},
    {"IQ2_M", LLAMA_FTYPE_MOSTLY_IQ2_M},
    {"IQ2_S", LLAMA_FTYPE_MOSTLY_IQ2_S},
    {"IQ2_XS", LLAMA_FTYPE_MOSTLY_IQ2_XS},
    {"IQ2_XXS", LLAMA_FTYPE_MOSTLY_IQ2_XXS},
    {"TQ2_0", LLAMA_FTYPE_MOSTLY_TQ2_0},
    {"TQ1_0", LLAMA_FTYPE_MOSTLY_TQ1_0},
    {"IQ1_M", LLAMA_FTYPE_MOSTLY_IQ1_M},
    {"IQ1_S", LLAMA_FTYPE_MOSTLY_IQ1_S},
    {"Q1_0", LLAMA_FTYPE_MOSTLY_Q1_0},
    {kCopy, LLAMA_FTYPE_ALL_F32},
}};

std::string upper(std::string word) {
    std::transform(word.begin(), word.end(), word.begin(), [](unsigned char c) { return std::toupper(c); });
    return word;
}

llama_model_quantize_params params_of(const QuantizeOptions & options) {
    const std::string wanted = upper(options.type);
    const auto found = std::find_if(kTypes.begin(), kTypes.end(), [&](const auto & row) { return wanted == row.first; });
    if (found == kTypes.end()) {
        throw Error(ErrorCode::invalid_request, "type is not known.", "type");
    }
    llama_model_quantize_params params = llama_model_quantize_default_params();
    params.ftype                       = found->second;
    params.only_copy                   = wanted == kCopy;
    params.nthread                     = options.threads;
    params.allow_requantize            = options.allow_requantize;
    params.quantize_output_tensor      = !options.leave_output;
    params.pure                        = options.pure;
    return params;
}

// Stands in for the log while it lives, and passes everything on.
class LogReader {
public:
    explicit LogReader(const QuantizeProgress & progress) : progress_(progress) {
        llama_log_get(&next_, &next_data_);
        llama_log_set(read, this);
    }
    ~LogReader() { llama_log_set(next_, next_data_); }
    LogReader(const LogReader &)             = delete;
    LogReader & operator=(const LogReader &) = delete;

    QuantizePlan plan;
    int32_t      fallbacks = 0;
    std::string  failure;

private:
    static void read(ggml_log_level level, const char * text, void * self) {
        auto * reader = static_cast<LogReader *>(self);
        reader->take(text);
        reader->next_(level, text, reader->next_data_);
    }

    void take(const std::string & text) {
        int    begun = 0;
        int    all   = 0;
        double mib   = 0;
        if (std::sscanf(text.c_str(), "[%d/%d]", &begun, &all) == 2) {
            from_quantized_ = is_quantized(after(text, "type = "));
            if (progress_) {
                progress_(begun, all);
            }
        } else if (text.rfind("size = ", 0) == 0 && text.find("->") != std::string::npos) {
            plan.requantizes = plan.requantizes || from_quantized_;
        } else if (std::sscanf(after(text, "quant size").c_str(), " = %lf MiB", &mib) == 1) {
            plan.tensor_bytes = static_cast<uint64_t>(mib * 1024 * 1024);
        } else if (text.find("will require an imatrix") != std::string::npos) {
            plan.needs_imatrix = true;
        } else if (std::sscanf(after(text, "WARNING: ").c_str(), "%d of %d tensor(s)", &begun, &all) == 2) {
            fallbacks = begun;
        } else if (!after(text, "failed to quantize: ").empty()) {
            failure = after(text, "failed to quantize: ");
            failure.erase(failure.find_last_not_of(" \n") + 1);
        }
    }

    // What follows `mark` in `text`; "" when it is not there.
    static std::string after(const std::string & text, const char * mark) {
        const size_t at = text.find(mark);
        return at == std::string::npos ? "" : text.substr(at + std::strlen(mark));
    }

    static bool is_quantized(const std::string & type) {
        std::array<char, 16> name{};
        std::sscanf(type.c_str(), " %15[^, ]", name.data());
        for (int id = 0; id < GGML_TYPE_COUNT; ++id) {
            const auto known = static_cast<ggml_type>(id);
            if (ggml_type_name(known) != nullptr && std::strcmp(ggml_type_name(known), name.data()) == 0) {
                return ggml_is_quantized(known);
            }
        }
        return false;
    }

    const QuantizeProgress & progress_;
    ggml_log_callback        next_           = nullptr;
    void *                   next_data_      = nullptr;
    bool                     from_quantized_ = false;  // the tensor whose line is being written
};

void run(const std::string & source, const std::string & target, llama_model_quantize_params params,
         const QuantizeOptions & options, const LogReader & log) {
    std::optional<ImportanceMatrix> imatrix;
    if (!options.imatrix.empty()) {
        params.imatrix = imatrix.emplace(options.imatrix).data();
    }
    if (llama_model_quantize(source.c_str(), target.c_str(), &params) != 0) {
        throw Error(ErrorCode::invalid_request, "The model cannot be quantized: " + log.failure + ".", "model");
    }
}

}  // namespace

std::vector<std::string> file_types() {
    std::vector<std::string> names;
    for (const auto & [name, type] : kTypes) {
        (void) type;
        names.emplace_back(name);
    }
    return names;
}

QuantizePlan plan_quantization(const std::string & source, const QuantizeOptions & options) {
    llama_model_quantize_params params = params_of(options);
    params.dry_run                     = true;
    start_llama();
    LogReader log(nullptr);
    run(source, "", params, options, log);
    return log.plan;
}

int32_t quantize(const std::string & source, const std::string & target, const QuantizeOptions & options,
                 const QuantizeProgress & progress) {
    const llama_model_quantize_params params = params_of(options);
    start_llama();
    LogReader log(progress);
    run(source, target, params, options, log);
    return log.fallbacks;
}

}  // namespace inferno

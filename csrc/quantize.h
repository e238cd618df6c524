// Writes a model anew with weights of another type. llama.cpp does it; here are the types' names, and its log read for
// what its call does not say: how far it is, how large the file becomes, and why it failed.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

namespace inferno {

struct QuantizeOptions {
    std::string type;                      // one of file_types(), in any case
    int32_t     threads          = 0;      // 0: as many as the machine has
    bool        allow_requantize = false;  // of tensors that are quantized already
    bool        leave_output     = false;  // output.weight stays as it is
    bool        pure             = false;  // one type for all tensors instead of a mixture
    std::string imatrix;                   // an importance matrix's file; "" for none
};

struct QuantizePlan {
    uint64_t tensor_bytes  = 0;      // of the result, to a hundredth of a MiB
    bool     requantizes   = false;  // a quantized tensor would change its type
    bool     needs_imatrix = false;  // and has none
};

// Names of the types, as llama.cpp's own tool has them.
std::vector<std::string> file_types();

// Without computing anything. Throws Error(invalid_request) for an unknown type and what cannot be quantized.
QuantizePlan plan_quantization(const std::string & source, const QuantizeOptions & options);

// Called with (tensors begun, all tensors).
using QuantizeProgress = std::function<void(int32_t, int32_t)>;

// Writes `target`, which a failure leaves incomplete. Returns how many tensors took another type than planned because
// their rows do not fit its blocks. One at a time in a process, since it reads the log. Throws like plan_quantization().
int32_t quantize(const std::string & source, const std::string & target, const QuantizeOptions & options,
                 const QuantizeProgress & progress);

}  // namespace inferno

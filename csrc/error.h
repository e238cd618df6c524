// What can go wrong, as values and as one exception type.
//
// The codes are those of the API document; `field` names the request field at fault ("" when none is).
// Messages are safe to show: they never hold paths, addresses or text taken from a prompt.
#pragma once

#include <stdexcept>
#include <string>
#include <utility>

namespace inferno {

enum class ErrorCode {
    invalid_request,
    context_length_exceeded,
    service_unavailable,  // queue full, engine closing
    inference_failed,
    timeout,
    internal_error,
};

class Error : public std::runtime_error {
public:
    Error(ErrorCode code, const std::string & message, std::string field = "")
        : std::runtime_error(message), code_(code), field_(std::move(field)) {}

    ErrorCode           code() const { return code_; }
    const std::string & field() const { return field_; }

private:
    ErrorCode   code_;
    std::string field_;
};

// The code as the API document spells it, e.g. "INVALID_REQUEST".
const char * error_code_name(ErrorCode code);

}  // namespace inferno

#include "error.h"

#include "event.h"

namespace inferno {

const char * error_code_name(ErrorCode code) {
    switch (code) {
        case ErrorCode::invalid_request:
            return "INVALID_REQUEST";
        case ErrorCode::context_length_exceeded:
            return "CONTEXT_LENGTH_EXCEEDED";
        case ErrorCode::service_unavailable:
            return "SERVICE_UNAVAILABLE";
        case ErrorCode::inference_failed:
            return "INFERENCE_FAILED";
        case ErrorCode::timeout:
            return "TIMEOUT";
        case ErrorCode::internal_error:
            break;
    }
    return "INTERNAL_ERROR";
}

const char * finish_reason_name(FinishReason reason) {
    switch (reason) {
        case FinishReason::stop:
            return "stop";
        case FinishReason::length:
            return "length";
        case FinishReason::cancelled:
            return "cancelled";
        case FinishReason::timeout:
            return "timeout";
        case FinishReason::error:
            break;
    }
    return "error";
}

}  // namespace inferno

#include <gguf.h>
#include <llama.h>

#include <algorithm>
#include <array>
#include <limits>
#include <numeric>
#include <string_view>

#include "model.h"
#include "tensor_list.h"
#include "text_stream.h"

namespace inferno {

namespace {

constexpr size_t kMaxShownString = 1024;

// Encoders without "bert" in their name. They need the whole input in one pass and pooling inside the model (one has
// dense layers behind it), which is_encoder() does not arrange for them yet: refused rather than embedded wrongly.
constexpr std::array<std::string_view, 3> kUnsupportedEncoders = {"t5encoder", "gemma-embedding", "llama-embed"};

bool is_unsupported_encoder(std::string_view architecture) {
    return std::find(kUnsupportedEncoders.begin(), kUnsupportedEncoders.end(), architecture) !=
           kUnsupportedEncoders.end();
}

// A file may hold any bytes; what leaves here is valid UTF-8.
std::string clean(const std::string & bytes) {
    TextStream        stream({});
    const std::string text = stream.push(bytes);
    return text + stream.finish();
}

int32_t as_count(int64_t value) {
    return static_cast<int32_t>(std::clamp<int64_t>(value, 0, std::numeric_limits<int32_t>::max()));
}

// Typed look-ups by key; a key that is absent or of another type gives the default.
class Metadata {
public:
    explicit Metadata(const gguf_context * gguf) : gguf_(gguf) {}

    std::string text(const std::string & key) const {
        const int64_t id = find(key, GGUF_TYPE_STRING);
        return id < 0 ? "" : clean(gguf_get_val_str(gguf_, id));
    }

    int64_t integer(const std::string & key, int64_t otherwise) const {
        const int64_t id = gguf_find_key(gguf_, key.c_str());
        return id < 0 ? otherwise : integer_at(id, otherwise);
    }

    bool flag(const std::string & key, bool otherwise) const {
        const int64_t id = find(key, GGUF_TYPE_BOOL);
        return id < 0 ? otherwise : gguf_get_val_bool(gguf_, id);
    }

    size_t array_length(const std::string & key) const {
        const int64_t id = find(key, GGUF_TYPE_ARRAY);
        return id < 0 ? 0 : gguf_get_arr_n(gguf_, id);
    }

    bool has(const std::string & key) const { return gguf_find_key(gguf_, key.c_str()) >= 0; }

    std::map<std::string, std::string> scalars() const {
        std::map<std::string, std::string> result;
        for (int64_t id = 0; id < gguf_get_n_kv(gguf_); ++id) {
            result[clean(gguf_get_key(gguf_, id))] = shown(id);
        }
        return result;
    }

private:
    int64_t find(const std::string & key, gguf_type type) const {
        const int64_t id = gguf_find_key(gguf_, key.c_str());
        return id >= 0 && gguf_get_kv_type(gguf_, id) == type ? id : -1;
    }

    int64_t integer_at(int64_t id, int64_t otherwise) const {
        switch (gguf_get_kv_type(gguf_, id)) {
            case GGUF_TYPE_UINT8:
                return gguf_get_val_u8(gguf_, id);
            case GGUF_TYPE_INT8:
                return gguf_get_val_i8(gguf_, id);
            case GGUF_TYPE_UINT16:
                return gguf_get_val_u16(gguf_, id);
            case GGUF_TYPE_INT16:
                return gguf_get_val_i16(gguf_, id);
            case GGUF_TYPE_UINT32:
                return gguf_get_val_u32(gguf_, id);
            case GGUF_TYPE_INT32:
                return gguf_get_val_i32(gguf_, id);
            case GGUF_TYPE_UINT64:
                return static_cast<int64_t>(gguf_get_val_u64(gguf_, id));
            case GGUF_TYPE_INT64:
                return gguf_get_val_i64(gguf_, id);
            default:
                return otherwise;
        }
    }

    std::string shown(int64_t id) const {
        switch (gguf_get_kv_type(gguf_, id)) {
            case GGUF_TYPE_STRING:
                return clean(std::string(gguf_get_val_str(gguf_, id)).substr(0, kMaxShownString));
            case GGUF_TYPE_BOOL:
                return gguf_get_val_bool(gguf_, id) ? "true" : "false";
            case GGUF_TYPE_FLOAT32:
                return std::to_string(gguf_get_val_f32(gguf_, id));
            case GGUF_TYPE_FLOAT64:
                return std::to_string(gguf_get_val_f64(gguf_, id));
            case GGUF_TYPE_ARRAY:
                return std::string("[") + gguf_type_name(gguf_get_arr_type(gguf_, id)) + "; " +
                       std::to_string(gguf_get_arr_n(gguf_, id)) + "]";
            default:
                return std::to_string(integer_at(id, 0));
        }
    }

    const gguf_context * gguf_;
};

const char * pooling_name(int64_t type) {
    switch (type) {
        case LLAMA_POOLING_TYPE_MEAN:
            return "mean";
        case LLAMA_POOLING_TYPE_CLS:
            return "cls";
        case LLAMA_POOLING_TYPE_LAST:
            return "last";
        case LLAMA_POOLING_TYPE_RANK:
            return "rank";
        case LLAMA_POOLING_TYPE_NONE:
            return "none";
        default:
            return "";
    }
}

std::string size_label(uint64_t n_params) {
    const double millions = static_cast<double>(n_params) / 1e6;
    const bool   billions = millions >= 1000;
    std::string  number   = std::to_string(billions ? millions / 1000 : millions);
    number.resize(number.find('.') + (billions ? 2 : 0));
    return number + (billions ? "B" : "M");
}

uint64_t elements(const TensorInfo & tensor) {
    return std::accumulate(tensor.shape.begin(), tensor.shape.end(), uint64_t{1}, [](uint64_t product, int64_t length) {
        return product * static_cast<uint64_t>(length);
    });
}

// Generating needs causal attention over the model's own output; models made for embedding say how they pool.
bool generates(const ModelInfo & info) {
    const bool encoder = info.architecture.find("bert") != std::string::npos || is_unsupported_encoder(info.architecture);
    return !encoder && info.causal && (info.pooling.empty() || info.pooling == "none");
}

}  // namespace

ModelInfo inspect_model(const std::string & path) {
    const GgufHeader header = read_header(path);
    const Metadata   metadata(header.keys.get());
    ModelInfo        info;
    info.architecture      = metadata.text("general.architecture");
    const std::string arch = info.architecture + ".";
    info.name              = metadata.text("general.name");
    info.context_train     = as_count(metadata.integer(arch + "context_length", 0));
    info.n_embd            = as_count(metadata.integer(arch + "embedding_length", 0));
    info.n_layer           = as_count(metadata.integer(arch + "block_count", 0));
    info.n_vocab           = static_cast<int32_t>(metadata.array_length("tokenizer.ggml.tokens"));
    info.pooling           = pooling_name(metadata.integer(arch + "pooling_type", -1));
    info.chat_template     = metadata.text("tokenizer.chat_template");
    info.metadata          = metadata.scalars();
    if (metadata.has("general.file_type")) {
        info.quantization = llama_ftype_name(static_cast<llama_ftype>(metadata.integer("general.file_type", 0)));
    }
    for (const TensorInfo & tensor : list_tensors(path, header)) {
        info.n_params += elements(tensor);
        info.size_bytes += tensor.bytes;
    }
    info.causal       = metadata.flag(arch + "attention.causal", true);
    info.can_generate = generates(info);
    info.can_embed    = info.pooling != "rank" && !is_unsupported_encoder(info.architecture);
    info.description  = info.architecture + " " + size_label(info.n_params) + " " + info.quantization;
    return info;
}

}  // namespace inferno

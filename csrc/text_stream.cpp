#include "text_stream.h"

#include <algorithm>
#include <utility>

namespace inferno {

namespace {

constexpr const char * kReplacement = "\xEF\xBF\xBD";  // U+FFFD

// What stands at the head of a byte string (Unicode 15, table 3-7).
struct Head {
    size_t length;      // bytes of the character, or of the maximal broken part
    bool   valid;
    bool   incomplete;  // more bytes could make it valid
};

bool in_range(unsigned char byte, unsigned char low, unsigned char high) {
    return byte >= low && byte <= high;
}

Head head_of(std::string_view text) {
    const auto lead = static_cast<unsigned char>(text[0]);
    if (lead < 0x80) {
        return {1, true, false};
    }
    size_t        length = 0;
    unsigned char low    = 0x80;
    unsigned char high   = 0xBF;
    if (in_range(lead, 0xC2, 0xDF)) {
        length = 2;
    } else if (in_range(lead, 0xE0, 0xEF)) {
        length = 3;
        low    = lead == 0xE0 ? 0xA0 : 0x80;
        high   = lead == 0xED ? 0x9F : 0xBF;
    } else if (in_range(lead, 0xF0, 0xF4)) {
        length = 4;
        low    = lead == 0xF0 ? 0x90 : 0x80;
        high   = lead == 0xF4 ? 0x8F : 0xBF;
    } else {
        return {1, false, false};
    }
    for (size_t i = 1; i < length; ++i) {
        if (i >= text.size()) {
            return {i, false, true};
        }
        if (!in_range(static_cast<unsigned char>(text[i]), low, high)) {
            return {i, false, false};
        }
        low  = 0x80;
        high = 0xBF;
    }
    return {length, true, false};
}

// Moves whole characters from the first `limit` bytes of `bytes` into `out`; returns the bytes used. A character
// that is cut by `limit` or incomplete at the end stays, unless `last`.
size_t decode(std::string_view bytes, size_t limit, bool last, std::string & out) {
    size_t used = 0;
    while (used < limit) {
        const Head head = head_of(bytes.substr(used));
        if (!last && (head.incomplete || used + head.length > limit)) {
            break;
        }
        if (head.valid) {
            out.append(bytes.substr(used, head.length));
        } else {
            out.append(kReplacement);
        }
        used += head.length;
    }
    return used;
}

// Length of the longest proper prefix of `stop` that ends `text`.
size_t partial_match(std::string_view text, std::string_view stop) {
    for (size_t length = std::min(text.size(), stop.size() - 1); length > 0; --length) {
        if (text.substr(text.size() - length) == stop.substr(0, length)) {
            return length;
        }
    }
    return 0;
}

}  // namespace

TextStream::TextStream(std::vector<std::string> stops) : stops_(std::move(stops)) {}

std::string TextStream::push(std::string_view bytes) {
    held_.append(bytes);
    size_t found  = std::string::npos;
    size_t unsafe = 0;
    for (const std::string & stop : stops_) {
        // Of two stops that begin at the same place the one listed first is reported.
        const size_t at = held_.find(stop);
        if (at < found) {
            found       = at;
            stop_match_ = stop;
        }
        unsafe = std::max(unsafe, partial_match(held_, stop));
    }
    std::string out;
    if (found != std::string::npos) {
        stopped_ = true;
        decode(std::string_view(held_).substr(0, found), found, true, out);
        held_.erase(0, found);
        return out;
    }
    held_.erase(0, decode(held_, held_.size() - unsafe, false, out));
    return out;
}

std::string TextStream::finish() {
    std::string out;
    decode(held_, held_.size(), true, out);
    held_.clear();
    return out;
}

size_t TextStream::held_bytes() const {
    return held_.size();
}

}  // namespace inferno

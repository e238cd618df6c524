// Token bytes -> text that may leave: whole UTF-8 characters, and no byte that could still become part of a
// stop string.
//
// Invalid bytes become U+FFFD, one for each maximal broken sequence (Unicode 15, section 3.9, "substitution of
// maximal subparts"); an incomplete character at the very end becomes one U+FFFD.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

namespace inferno {

class TextStream {
public:
    // REQUIRES: no stop string is empty.
    explicit TextStream(std::vector<std::string> stops);

    // Takes the bytes of one token and returns the text that is now safe to send (often empty).
    // After a stop string has matched, returns the text before it, and `stopped()` is true.
    // REQUIRES: !stopped().
    std::string push(std::string_view bytes);

    // The text still held back; the stream is then at its end.
    std::string finish();

    bool                stopped() const { return stopped_; }
    const std::string & stop_match() const { return stop_match_; }

    // Bytes taken in by push() whose text has not been released (or, once stopped, never will be).
    size_t held_bytes() const;

private:
    std::vector<std::string> stops_;
    std::string              held_;  // bytes not yet released
    bool                     stopped_ = false;
    std::string              stop_match_;
};

}  // namespace inferno

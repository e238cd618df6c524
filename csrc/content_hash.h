// XXH64 with seed 0 (xxHash fast digest algorithm, format specification 0.2.0), of bytes that come in pieces: finds what
// has changed, and is not made against those who want two contents to look alike.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>

namespace inferno {

class ContentHash {
public:
    void     add(const void * bytes, size_t size);
    uint64_t value() const;

private:
    static constexpr size_t kStripe = 32;

    void take_stripe(const uint8_t * stripe);

    std::array<uint64_t, 4>      lanes_ = start();
    std::array<uint8_t, kStripe> rest_{};  // the first total_ % kStripe bytes
    uint64_t                     total_ = 0;

    static std::array<uint64_t, 4> start();
};

// Of a file's content, added to `hash`. Throws Error(invalid_request, field "model") for one that cannot be read.
void add_file(ContentHash & hash, const std::string & path);

}  // namespace inferno
